"""``aimcore run``: load, change, check and run a study, or print its cost."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import cast

from loguru import logger

from aimcore.contracts.errors import RunFolderError
from aimcore.contracts.scales import Scale
from aimcore.experiment import Study
from aimcore.io.launcher import rank, world_size
from aimcore.io.terminal import Terminal
from aimcore.running.summary import Summary

DEFAULT_SCALE: Scale = "small"


def run_command(options: argparse.Namespace) -> int:
    """Run or check a study as the command line asks (see :func:`aimcore.run.add_run_arguments`).

    Returns:
        0 if everything that was asked for is finished, 1 if an experiment failed, 130 after Ctrl-C.

    Raises:
        AimcoreError: no experiment could be started.
    """
    from aimcore.running.preflight import check_study
    from aimcore.running.study_run import default_folder, run_study

    study, scale = _study(options)
    if options.dry_run:
        check_study(study, world_size=world_size(), with_data=False, features_cache=options.features_cache)
        return _dry_run(study)
    out = options.out or default_folder(study, scale)
    try:
        summary = run_study(study, out, scale=scale, resume=options.resume, features_cache=options.features_cache)
    except RunFolderError as error:
        if not options.resume and out.is_dir():
            error.add_note(f"if the run there is of the same recipes, this continues it: {resume_command(options)}")
        raise
    if rank() == 0:
        from aimcore.cli.report import draw_after_run

        _print(summary, out)
        draw_after_run(out)
        logger.info("results are in {}", out)
    wanted = {experiment.name for experiment in study.experiments}
    statuses = {entry.status for entry in summary.experiments if entry.name in wanted}
    if rank() == 0 and statuses & {"interrupted", "failed"}:
        logger.info("to continue: {}", resume_command(options))
    return 130 if "interrupted" in statuses else 1 if "failed" in statuses else 0


def resume_command(options: argparse.Namespace) -> str:
    """Return the command that continues a run, with all options that select or change its experiments.

    >>> options = argparse.Namespace(study=Path("a.py"), scale="smoke", only=["x"], out=None, features_cache=None,
    ...                              changes=["trunk.depth=2"], seeds=3)
    >>> resume_command(options)
    'python -m aimcore.run a.py --scale smoke --seeds 3 --only x --set trunk.depth=2 --resume'
    """
    given = [
        ("--scale", options.scale),
        ("--seeds", options.seeds),
        *(("--only", name) for name in options.only),
        ("--out", options.out),
    ]
    given += [("--features-cache", options.features_cache), *(("--set", change) for change in options.changes)]
    words = [str(word) for option, value in given if value is not None for word in (option, value)]
    return shlex.join(["python", "-m", "aimcore.run", str(options.study), *words, "--resume"])


def _print(summary: Summary, out: Path) -> None:
    """Print the table of results. If it cannot be printed, the exit status is still that of the run."""
    from aimcore.report.terminal_table import print_summary

    try:
        print_summary(summary, Terminal(), out)
        sys.stdout.flush()
    except OSError as error:  # a full disk, a terminal that was closed
        logger.error("the table of results cannot be printed: {}", error)
        # Python would write the rest of its buffer at exit, and fail again.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _study(options: argparse.Namespace) -> tuple[Study, str | None]:
    """Return the study as selected and changed by the options, and its scale (None for a recipe)."""
    from aimcore.running.study_files import changed, is_recipe, load_study, selected

    path = cast(Path, options.study)
    if is_recipe(path) and options.scale and rank() == 0:
        logger.warning("--scale {} has no effect: {} is a recipe, whose size is fixed", options.scale, path)
    study = load_study(path, options.scale or DEFAULT_SCALE)
    # --only names experiments of the study file, and selects all of their seeds.
    study = changed(selected(study, options.only), options.changes)
    study = study if options.seeds is None else study.over_seeds(options.seeds)
    return study, None if is_recipe(path) else (options.scale or DEFAULT_SCALE)


def _dry_run(study: Study) -> int:
    from aimcore.engine.cost import costs_of
    from aimcore.report.cost_table import print_costs

    if rank() == 0:
        print_costs(study, costs_of(study.experiments, world_size()), world_size(), Terminal())
    return 0
