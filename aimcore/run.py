"""The command line: ``python -m aimcore.run STUDY_OR_RECIPE``, and ``aimcore run``, ``caption``, ``runs``, ....

Only this module adds log sinks. Heavy libraries are imported when they are needed, so that help is quick.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loguru import logger

from aimcore.cli.data import add_data_arguments
from aimcore.cli.embed import add_embed_arguments
from aimcore.cli.export import add_export_arguments
from aimcore.cli.inspect import add_inspect_arguments
from aimcore.cli.look import add_look_arguments
from aimcore.cli.plan import add_plan_arguments
from aimcore.cli.reproduce import add_reproduce_arguments
from aimcore.cli.sampling_arguments import add_sampling_arguments, sampling_given
from aimcore.cli.search import add_search_arguments
from aimcore.cli.tokenizer import add_tokenizer_arguments
from aimcore.contracts.errors import TRACEBACK, AimcoreError, RunFailed
from aimcore.contracts.messages import printable_lines
from aimcore.contracts.scales import SCALES
from aimcore.contracts.uncertainty import UncertainEncoder
from aimcore.io.launcher import is_launched
from aimcore.io.locations import with_store_errors
from aimcore.io.run_folder import RECIPE_FILE, REPORT_FILE, SUMMARY_FILE
from aimcore.io.signals import termination_interrupts

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_SHORTEST_WATCH = 0.1

_EXAMPLES = f"""\
examples:
  python -m aimcore.run examples/ablation_pattern.py                      the whole study at its small scale
  python -m aimcore.run examples/ablation_pattern.py --only raster        one experiment of the study
  python -m aimcore.run examples/ablation_pattern.py --scale paper --dry-run
  python -m aimcore.run examples/ablation_pattern.py --set num_steps=100 --set trunk.depth=2 --out runs/short
  python -m aimcore.run runs/ablation-pattern-small/raster/{RECIPE_FILE}    repeat a run from its recipe

exit status: 0 all finished; 1 an experiment failed; 2 nothing could be started; 130 interrupted
"""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a run."""
    parser.add_argument("study", type=Path, metavar="STUDY_OR_RECIPE", help="a study (.py) or a recipe (.json, .yaml)")
    parser.add_argument("--scale", choices=SCALES, help="how large the study runs (default: small)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this experiment; repeatable")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="repeat every experiment with the seeds 0 to N - 1",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: runs/<study>-<scale>)")
    parser.add_argument(
        "--resume", action="store_true", help="skip finished experiments in --out, and continue the others"
    )
    parser.add_argument(
        "--features-cache", metavar="URL", help="store the features of frozen trunks there, and reuse them"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything except the data, and print the cost")
    parser.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="PATH=VALUE",
        help="change a field of every recipe; VALUE is JSON or else text; repeatable",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study: ``python -m aimcore.run``.

    Returns:
        The exit status: 0 finished, 1 an experiment failed, 2 nothing could be started, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m aimcore.run",
        description="Run a study: pre-train its experiments one after another, probe them, and compare the scores.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser)
    add_run_arguments(parser)
    return _guarded(run, parser.parse_args(arguments))


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the console script ``aimcore``: the study runner of ``main``, and all other subcommands."""
    parser = argparse.ArgumentParser(prog="aimcore", description="Pre-train and study autoregressive vision encoders.")
    _add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run = commands.add_parser("run", help="run a study or a recipe", epilog=_EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add_run_arguments(add_run)
    add_run.set_defaults(function=run)
    plugins = commands.add_parser("plugins", help="list the installed plugins and their components")
    plugins.add_argument("--load", action="store_true", help="import all plugins, to find those whose import fails")
    plugins.set_defaults(function=_plugins)
    describe = commands.add_parser("describe", help="list roles or the components of a role, or show the fields of one")
    describe.add_argument(
        "what", nargs="?", metavar="ROLE[/NAME]",
        help="such as orderings or orderings/spiral; experiment lists the paths that --set accepts; default: the roles",
    )  # fmt: skip
    describe.add_argument("--json", action="store_true", help="print values instead of text")
    describe.set_defaults(function=_describe)
    check = commands.add_parser("check", help="check properties of installed components, or of a study")
    _add_checks(check.add_subparsers(required=True, metavar="PROPERTY"))
    report = commands.add_parser("report", help=f"draw a study's {REPORT_FILE} again")
    report.add_argument("out", type=Path, metavar="OUT", help="output folder of the study")
    report.set_defaults(function=_report)
    _add_records(commands)
    options = parser.parse_args(arguments)
    return _guarded(options.function, options)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"aimcore {version('aimcore')}")


def _seconds(text: str) -> float:
    """Parse a refresh interval, which has a lower bound so that the terminal is not redrawn all the time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST_WATCH <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, at least {_SHORTEST_WATCH}, got {text!r}")
    return seconds


def _add_records(commands: Any) -> None:
    runs = commands.add_parser("runs", help="list runs: state, step, loss, rate, time left")
    runs.add_argument("root", nargs="?", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    how = runs.add_mutually_exclusive_group()
    how.add_argument(
        "--watch", nargs="?", type=_seconds, const=2.0, metavar="SECONDS", help="refresh the table (every 2 s)"
    )
    how.add_argument("--json", action="store_true", help="print a JSON list")
    runs.set_defaults(function=_runs)
    diff = commands.add_parser(
        "diff", help="show the differences of two recipes",
        description="Show where two recipes differ, versions included. Exit status: 0 equal, 1 different.",
    )  # fmt: skip
    for side in ("left", "right"):
        diff.add_argument(side, metavar=side.upper(), help="a recipe, a run's folder, or STUDY.py:[SCALE:]NAME")
    diff.add_argument("--json", action="store_true", help="print a list of objects with path, left and right")
    diff.set_defaults(function=_diff)
    _add_probe(commands)
    _add_caption(commands)
    add_data_arguments(commands)
    add_tokenizer_arguments(commands)
    add_export_arguments(commands)
    add_embed_arguments(commands)
    add_search_arguments(commands)
    add_look_arguments(commands)
    add_inspect_arguments(commands)
    add_plan_arguments(commands)
    add_reproduce_arguments(commands)


def _add_probe(commands: Any) -> None:
    probe = commands.add_parser(
        "probe", help="probe a trained run again, or with other probes",
        description=f"Probe the final trunk of a run, write the scores into its study's {SUMMARY_FILE}, and draw "
        "the report again. By default it uses the run's own probes. Scores of other names are kept.",
    )  # fmt: skip
    probe.add_argument("run", type=Path, metavar="RUN", help="folder of a completely trained run")
    probe.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="PATH=VALUE",
        help="change probes, probe_*, evaluations, data.probe_train or data.probe_test, "
        "for example --set 'probes=[\"knn\"]'; repeatable",
    )  # fmt: skip
    probe.add_argument(
        "--features-cache", metavar="URL", help="store the features of frozen trunks there, and reuse them"
    )
    probe.set_defaults(function=_probe)


def _add_caption(commands: Any) -> None:
    caption = commands.add_parser(
        "caption", help="caption images with a trained run",
        description="Print captions of images, greedy or sampled.",
        epilog="exit status: 0 every image has captions; 1 an image could not be read; 2 nothing was started; "
        "130 interrupted",
    )  # fmt: skip
    caption.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    caption.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder of files, or a URL")
    add_sampling_arguments(caption)
    caption.add_argument("--json", action="store_true", help="print a list of objects with file and captions")
    caption.set_defaults(function=_caption)


def _add_checks(properties: Any) -> None:
    causality = properties.add_parser("causality", help="check that no prediction depends on its own target")
    causality.add_argument("study", nargs="?", type=Path, metavar="STUDY", help="default: all installed components")
    causality.add_argument("--scale", choices=SCALES, help="scale of the study (default: smoke)")
    causality.set_defaults(function=_check)
    plugin = properties.add_parser("plugin", help="run the conformance kit on the components of a plugin")
    plugin.add_argument("name", metavar="NAME", help="a plugin or a distribution, as 'aimcore plugins' lists them")
    plugin.set_defaults(function=_check_plugin)


def run(options: argparse.Namespace) -> int:
    """Run the study that ``options`` (see :func:`add_run_arguments`) describe, and return the exit status."""
    from aimcore.cli.run import run_command

    return run_command(options)


def _plugins(options: argparse.Namespace) -> int:
    from aimcore.cli.plugins import plugins_command

    return plugins_command(load=options.load)


def _describe(options: argparse.Namespace) -> int:
    from aimcore.cli.describe import describe_command

    return describe_command(options.what, as_json=options.json)


def _report(options: argparse.Namespace) -> int:
    from aimcore.cli.report import report_command

    return report_command(options.out)


def _runs(options: argparse.Namespace) -> int:
    from aimcore.cli.runs import runs_command

    return runs_command(options.root, watch=options.watch, as_json=options.json)


def _diff(options: argparse.Namespace) -> int:
    from aimcore.cli.diff import diff_command

    return diff_command(options.left, options.right, as_json=options.json)


def _caption(options: argparse.Namespace) -> int:
    from aimcore.cli.caption import CaptionOptions, caption_command

    given = sampling_given(options)
    return caption_command(options.run, options.images, CaptionOptions(**given, as_json=options.json))


def _probe(options: argparse.Namespace) -> int:
    from aimcore.cli.probe import probe_command

    return probe_command(options.run, options.changes, options.features_cache)


def _check(options: argparse.Namespace) -> int:
    from aimcore.cli.check import check_command

    return check_command(options.study, options.scale or "smoke")


def _check_plugin(options: argparse.Namespace) -> int:
    from aimcore.cli.check import check_plugin_command

    return check_plugin_command(options.name)


def _guarded(function: object, options: argparse.Namespace) -> int:
    """Call a command, and print errors that a user can act on without a traceback."""
    assert callable(function)
    # Read once, when torch loads OpenMP. By default, threads spin for milliseconds at the end of each operation. This
    # makes a step tens of times slower as soon as another process needs a core; spinning for microseconds does not.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    _set_up_log()
    try:
        # A launcher's processes keep the system's handlers until they train: Python's do not run in a wait of NCCL.
        with nullcontext() if is_launched() else termination_interrupts():
            return int(function(options))
    except with_store_errors(AimcoreError, OSError) as error:
        # An OSError is refused by the system: a name, a file, a full disk. The others are of a network.
        _print_error(error)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _print_error(error: Exception) -> None:
    """Print an error for a user, with the notes on where it arose. Text from files is made safe for terminals."""
    text = "\n  ".join([f"error: {error}", *getattr(error, "__notes__", ())])
    print(printable_lines(text), file=sys.stderr)
    if os.environ.get(TRACEBACK):
        print(printable_lines("".join(traceback.format_exception(error))), file=sys.stderr)


def _write_log(message: str) -> None:
    """Write a log line. Names in it may come from files."""
    sys.stderr.write(printable_lines(message))
    sys.stderr.flush()


def _set_up_log() -> None:
    """Log to stderr: everything on the first process, only errors on the others."""
    from aimcore.io.launcher import rank

    logger.remove()
    level, who = ("INFO", "") if rank() == 0 else ("ERROR", f"rank {rank()} ")
    logger.add(_write_log, level=level, format="{time:HH:mm:ss} " + who + "{level.name: <7} {message}")
    logger.enable("aimcore")
    # Python shows deprecations of code in __main__ only; a study file and plugins are modules.
    warnings.filterwarnings("default", message=r".*aimcore 0\.3", category=DeprecationWarning)
    for logged in (RunFailed, UncertainEncoder):  # both are in the log
        warnings.simplefilter("ignore", logged)


if __name__ == "__main__":
    sys.exit(main())
