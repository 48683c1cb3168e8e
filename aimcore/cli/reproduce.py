"""``aimcore reproduce STUDY...``: run studies over several seeds, and compare their scores with those of the papers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from loguru import logger

from aimcore.contracts.errors import InvalidStudy
from aimcore.contracts.scales import SCALES, Scale
from aimcore.io.launcher import rank

if TYPE_CHECKING:  # it loads torch, and help must be quick
    from aimcore.experiment import Study
    from aimcore.running.summary import Summary

PAGE = "reproduction.md"
"""File in the output folder with the tables of all studies."""


def add_reproduce_arguments(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "reproduce", help="run studies over several seeds, and compare their scores with the papers'",
        description=f"Run each study with several seeds, each in a folder of its own, and write {PAGE}: the paper's "
        "scores beside ours, and for every two variants whether the paper's difference is reproduced. Finished runs "
        "are skipped, so that the same command continues after an interruption.",
        epilog="exit status: 0 all finished; 1 an experiment failed; 2 nothing could be started; 130 interrupted",
    )  # fmt: skip
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY", help="files of studies (.py)")
    parser.add_argument("--scale", choices=SCALES, default="small", help="how large they run (default: small)")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N",
        help="repeat every experiment with the seeds 0 to N - 1, except in scaling studies (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduction"), metavar="DIR", help="default: runs/reproduction"
    )
    parser.set_defaults(function=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    return reproduce_command(options.studies, options.scale, options.seeds, options.out)


def reproduce_command(paths: Sequence[Path], scale: Scale, num_seeds: int, out: Path) -> int:
    """Run the studies in ``paths``, and write the page after each of them.

    All studies and their folders are checked before the first one runs.

    Returns:
        0 if everything is finished, 1 if an experiment failed, 130 after Ctrl-C.

    Raises:
        AimcoreError: a study cannot run.
    """
    from aimcore.running.study_run import ready_study, run_ready

    studies = [_seeded(path, scale, num_seeds) for path in paths]
    _require_different_names(paths, studies)
    folders = [out / study.name for study in studies]
    checked = [
        ready_study(study, folder, scale=scale, resume=folder.is_dir())
        for study, folder in zip(studies, folders, strict=True)
    ]
    statuses: set[str] = set()
    for number, ready in enumerate(checked, 1):
        logger.info("study {} of {}: {}, {} runs", number, len(checked), ready.study.name, len(ready.study.experiments))
        summary = _asked_for(ready.study, run_ready(ready))
        statuses |= {entry.status for entry in summary.experiments}
        if rank() == 0:
            _write(studies[:number], scale, num_seeds, out)
        if "interrupted" in statuses:
            logger.info("interrupted; the same command continues")
            return 130
    return 1 if "failed" in statuses else 0


def _seeded(path: Path, scale: Scale, num_seeds: int) -> Study:
    from aimcore.running.study_files import load_study

    study = load_study(path, scale)
    return study if study.scaling is not None else study.over_seeds(num_seeds)


def _require_different_names(paths: Sequence[Path], studies: Sequence[Study]) -> None:
    """Refuse studies that would run in one folder."""
    named: dict[str, Path] = {}
    for path, study in zip(paths, studies, strict=True):
        if study.name in named:
            raise InvalidStudy(
                f"{named[study.name]} and {path} both have a study called {study.name!r}, and a study's folder has "
                "its name: leave one of them out, or rename it"
            )
        named[study.name] = path


def _asked_for(study: Study, summary: Summary) -> Summary:
    """Return ``summary`` without runs of the folder that are not in ``study``, such as those of further seeds."""
    names = {experiment.name for experiment in study.experiments}
    kept = tuple(entry for entry in summary.experiments if entry.name in names)
    return attrs.evolve(summary, experiments=kept)


def _write(studies: Sequence[Study], scale: Scale, num_seeds: int, out: Path) -> None:
    """Draw the report of the last study, and write the page of all studies so far."""
    from aimcore.cli.report import draw_after_run
    from aimcore.io.atomic_files import write_atomically
    from aimcore.io.run_folder import StudyFolder
    from aimcore.report.reproduction import markdown, reproduction_of
    from aimcore.running.summary import read_summary

    draw_after_run(out / studies[-1].name)
    summaries = {
        study.name: _asked_for(study, read_summary(StudyFolder(out / study.name).summary)) for study in studies
    }
    machine = next(iter(summaries.values())).machine
    notes = {
        "scale": f"`{scale}`, seeds 0 to {num_seeds - 1}",
        "machine": ", ".join(f"{name} {value}" for name, value in machine.items() if isinstance(value, str | int)),
    }
    found = [reproduction_of(summary, out / name) for name, summary in summaries.items()]
    write_atomically(out / PAGE, markdown(found, notes))
    logger.info("wrote {}", out / PAGE)
