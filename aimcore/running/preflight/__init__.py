"""Preflight: the checks before a study or an experiment runs.

:data:`CHECKS` lists all checks in their order. Each value is validated when it is created; the checks here need several
values, a file, or the data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from loguru import logger

from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.engine.weights_advice import weights_advice
from aimcore.experiment import Experiment, Study
from aimcore.running.omitted_samples import LeftOut, left_out_of
from aimcore.running.preflight.checks import CHECKS, MEASURING, Check, Findings
from aimcore.running.preflight.subject import OpenSources, Subject

__all__ = ["CHECKS", "MEASURING", "Check", "check_experiment", "check_measuring", "check_study"]


def check_study(
    study: Study,
    *,
    world_size: int = 1,
    with_data: bool = True,
    out: Path | None = None,
    features_cache: str | None = None,
) -> dict[str, LeftOut]:
    """Run all :data:`CHECKS` on every experiment of ``study``.

    Args:
        study: the study that is about to run.
        world_size: number of processes.
        with_data: whether to open the sources; a dry run does not.
        out: the study's folder, which may hold runs that experiments begin with; None checks only values.
        features_cache: fsspec URL of the feature cache.

    Returns:
        Counts of what the sources of each experiment leave out; empty without data.

    Raises:
        InvalidValue: some experiments cannot run; lists every problem with its path.
    """
    sources = OpenSources() if with_data else None
    subjects = [Subject(one, study, sources, world_size, out, features_cache) for one in study.experiments]
    _require_none(f"study {study.name!r}", subjects, CHECKS, prefixed=True)
    _advise(study.experiments)
    return {} if sources is None else {one.name: left_out_of(one.data, sources.opened) for one in study.experiments}


def check_experiment(
    experiment: Experiment,
    *,
    world_size: int,
    out: Path,
    features_cache: str | None = None,
    paper: Mapping[str, float] | None = None,
) -> LeftOut:
    """Check an experiment that runs alone, as :func:`check_study` does, and return what its sources leave out.

    ``paper`` holds the paper's scores, which are fractions.

    Raises:
        InvalidValue: the experiment cannot run; lists every problem with its path.
    """
    alone = Study(name=experiment.name, experiments=[experiment], paper={experiment.name: paper or {}})
    sources = OpenSources()
    subject = Subject(experiment, alone, sources, world_size, out, features_cache)
    _require_none(f"experiment {experiment.name!r}", [subject], CHECKS, prefixed=False)
    _advise([experiment])
    return left_out_of(experiment.data, sources.opened)


def check_measuring(experiment: Experiment, *, features_cache: str | None = None) -> None:
    """Run the checks in :data:`MEASURING`, before a trained experiment is probed and evaluated again.

    Raises:
        InvalidValue: the experiment cannot be probed or evaluated; lists every problem with its path.
    """
    alone = Study(name=experiment.name, experiments=[experiment])
    subject = Subject(experiment, alone, OpenSources(), features_cache=features_cache)
    checks = [check for check in CHECKS if check.name in MEASURING]
    _require_none(f"experiment {experiment.name!r}", [subject], checks, prefixed=False)


def _require_none(owner: str, subjects: Sequence[Subject], checks: Collection[Check], *, prefixed: bool) -> None:
    """Run the checks, those of an experiment once per subject and those of a study once.

    Raises:
        InvalidValue: there are problems. Its cause is the first error that no check expects.
    """
    problems: list[Problem] = []
    causes: list[Exception] = []
    for subject in subjects:
        found = Findings.of(subject, [check for check in checks if not check.of_study])
        name = subject.experiment.name
        problems += [_below(name, problem) if prefixed else problem for problem in found.problems]
        causes += found.causes
    found = Findings.of(subjects[0], [check for check in checks if check.of_study])
    problems, causes = problems + found.problems, causes + found.causes
    if problems:
        raise InvalidValue(owner, problems) from (causes[0] if causes else None)


def _below(name: str, problem: Problem) -> Problem:
    return Problem(f"{name}.{problem.path}" if problem.path else name, problem.message)


def _advise(experiments: Sequence[Experiment]) -> None:
    """Log advice on initial weights, each text once."""
    for text in dict.fromkeys(text for experiment in experiments for text in weights_advice(experiment)):
        logger.warning("initial weights: {}", text)
