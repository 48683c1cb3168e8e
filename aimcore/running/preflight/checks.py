"""The ordered list of preflight checks, and the code that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, Self

import attrs

from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.contracts.messages import unexpected
from aimcore.running.preflight import data_checks, part_checks, run_checks
from aimcore.running.preflight.subject import Subject

Reads = Literal["values", "files", "data"]
COSTS: tuple[Reads, ...] = ("values", "files", "data")
"""Kinds of input of a check, cheapest first. A dry run omits checks that read data."""


@attrs.frozen
class Check:
    """A condition that must hold before a run begins."""

    name: str
    purpose: str
    """The condition, as a sentence."""
    problems: Callable[[Subject], Iterable[Problem]]
    """Yields problems; an AimcoreError that it raises becomes a problem too."""
    reads: Reads = "values"
    path: str = ""
    """Path of the field for errors that are raised."""
    after: tuple[str, ...] = ()
    """Names of checks that must have found no problem in the experiment, because this check relies on them."""
    of_study: bool = False
    """Whether the check runs once for the whole study."""
    of_training: bool = False
    """Whether the check is about training: an experiment of 0 steps does without."""
    of_losses: bool = False
    """Whether the check is about losses: an experiment without (``Experiment.is_validated``) does without."""

    def applies_to(self, subject: Subject) -> bool:
        """Return whether the check must hold for ``subject``; a dry run omits checks of the data."""
        experiment = subject.experiment
        if (self.of_training and experiment.num_steps == 0) or (self.of_losses and not experiment.is_validated):
            return False
        return subject.sources is not None or self.reads != "data"


CHECKS: tuple[Check, ...] = (
    Check(
        "recipe",
        "The experiment's recipe loads to an equal experiment.",
        lambda one: part_checks.recipe_problems(one.experiment),
    ),
    Check(
        "batches",
        "Each step divides over processes and micro-batches.",
        lambda one: part_checks.batch_problems(
            one.experiment.data, one.world_size, one.experiment.engine.accumulation_steps
        ),
        path="data",
        of_training=True,
    ),
    Check(
        "trackers",
        "Each tracker can write to its destination, and no two runs have the same one.",
        lambda one: run_checks.tracker_problems(one.experiment, one.study.experiments),
        of_training=True,
    ),
    Check(
        "evaluations",
        "The objective has the capabilities that the evaluations require.",
        lambda one: part_checks.evaluation_problems(one.experiment.evaluations, one.experiment.objective),
    ),
    Check(
        "features_cache",
        "Features can be stored at the given URL.",
        lambda one: run_checks.cache_problems(one.features_cache),
        path="features_cache",
        of_study=True,
    ),
    Check(
        "vocabulary",
        "The tokenizer's file exists and is unchanged, and the context has room for text.",
        lambda one: part_checks.vocabulary_problems(one.experiment.objective),
        reads="files",
    ),
    Check(
        "modules",
        "Trunk and objective can be built, and do not have too many parameters.",
        lambda one: part_checks.module_problems(one.experiment, lambda: one.module),
        reads="files",
        after=("vocabulary",),
    ),
    Check(
        "frozen",
        "The names in `frozen` match parameters, and other parameters are left to train.",
        lambda one: part_checks.frozen_problems(one.module, one.experiment.frozen),
        reads="files",
        after=("vocabulary", "modules"),
        of_training=True,
    ),
    Check(
        "optimizer",
        "The optimizer can be built for the modules' parameters, and their learning rates are valid.",
        lambda one: part_checks.optimizer_problems(one.module, one.experiment.optimizer, one.experiment.frozen),
        reads="files",
        path="optimizer",
        after=("vocabulary", "modules", "frozen"),
        of_training=True,
    ),
    Check(
        "recomputation",
        "The trunk names blocks whose activations can be recomputed, if `engine.checkpoint_activations` is set.",
        lambda one: part_checks.recomputation_problems_of(one.module, one.experiment),
        reads="files",
        after=("vocabulary", "modules"),
        of_training=True,
    ),
    Check(
        "initial_weights",
        "Files of initial weights exist and are unchanged, and each fits its part of the objective.",
        lambda one: part_checks.weight_problems(one.experiment, one.module),
        reads="files",
        path="initial_weights",
        after=("vocabulary", "modules"),
    ),
    Check(
        "branch",
        "The parent run has the same settings and rates up to the branch, and a checkpoint at its step.",
        lambda one: run_checks.branch_problems(one.experiment, one.study, one.out),
        reads="files",
        path="branch",
    ),
    Check(
        "earlier_weights",
        "Runs that supply initial weights come earlier or have ended, and their weights fit.",
        lambda one: run_checks.earlier_weight_problems(one.experiment, one.module, one.study, one.out),
        reads="files",
        path="initial_weights",
        after=("vocabulary", "modules"),
    ),
    Check(
        "checkpoint_copies",
        "Checkpoints can be copied to `engine.checkpoint_copies`, if it is set: a small file is written and removed.",
        lambda one: run_checks.copies_problems(one.experiment),
        reads="data",
        of_training=True,
    ),
    Check(
        "sources",
        "Every source opens, has images, and counts the samples that it leaves out.",
        lambda one: data_checks.source_problems(one.experiment.data, one.opened),
        reads="data",
    ),
    Check(
        "captions",
        "An objective that reads text is trained and validated on images with captions.",
        lambda one: data_checks.caption_problems(one.experiment.objective, one.experiment.data, one.opened),
        reads="data",
        after=("sources",),
        of_losses=True,
    ),
    Check(
        "extras",
        "Samples have the extras that the objective reads.",
        lambda one: data_checks.extra_problems(one.experiment.objective, one.experiment.data, one.opened),
        reads="data",
        after=("sources",),
        of_losses=True,
    ),
    Check(
        "labels",
        "The training and validation data have what the objective requires, such as labels of its classes.",
        lambda one: data_checks.objective_problems(one.experiment.objective, one.experiment.data, one.opened),
        reads="data",
        after=("sources",),
        of_losses=True,
    ),
    Check(
        "evaluation_data",
        "The data have what the evaluations require.",
        lambda one: data_checks.evaluation_problems(one.experiment, one.opened),
        reads="data",
        after=("sources",),
    ),
    Check(
        "probes",
        "Training and test images of probes have labels of the same classes, and the blocks that probes read exist.",
        lambda one: data_checks.probe_problems(one.experiment, one.opened),
        reads="data",
        after=("sources",),
    ),
)
"""All checks, in order of cost. ``docs/preflight.md`` has the same list."""

MEASURING = frozenset({"evaluations", "features_cache", "sources", "evaluation_data", "probes"})
"""The checks of measurements after training."""


@attrs.define
class Findings:
    """Results of the checks of one experiment."""

    problems: list[Problem] = attrs.field(factory=list)
    causes: list[Exception] = attrs.field(factory=list)
    """Errors that no check expects: bugs of plugins, or of this package."""

    @classmethod
    def of(cls, subject: Subject, checks: Sequence[Check]) -> Findings:
        """Run ``checks`` on ``subject`` in turn; a dry run omits checks of the data."""
        findings, failed = cls(), set[str]()
        for check in checks:
            if failed.intersection(check.after) or not check.applies_to(subject):
                continue
            before = len(findings.problems)
            with _Reporting(check, findings):
                findings.problems += check.problems(subject)
            if len(findings.problems) > before:
                failed.add(check.name)
        return findings


class _Reporting:
    """Turns errors of a check into problems: a plugin may raise any error, and the other checks must continue."""

    def __init__(self, check: Check, findings: Findings) -> None:
        self._check = check
        self._findings = findings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        path, problems = self._check.path, self._findings.problems
        if isinstance(error, InvalidValue):
            problems += [Problem(".".join(filter(None, (path, below))), text) for below, text in error.problems]
        elif isinstance(error, AimcoreError):
            problems.append(Problem(path, str(error)))
        elif isinstance(error, Exception):
            problems.append(Problem(path, f"the check {self._check.name!r} ended with {unexpected(error)}"))
            self._findings.causes.append(error)
        return error is None or isinstance(error, Exception)
