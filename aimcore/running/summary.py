"""``summary.json``: the measurements of a study, as values that are checked when they are read.

Keys are the names of the fields below. A field that was not configured or not reached is absent. Accuracies and
intervals are fractions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from aimcore.contracts.component import Checked, at_least, within
from aimcore.contracts.errors import InvalidSummary, InvalidValue, Problem
from aimcore.contracts.structuring import join, structure
from aimcore.io.atomic_files import write_atomically
from aimcore.running.correctness import Correctness

SCHEMA_VERSION = 1
NUM_CHUNKS = 16
"""Equal chunks of the reading order for which the validation loss is given. Figure 7 of arXiv:2401.08541 shows chunks,
and does not give their number."""

Status = Literal["finished", "interrupted", "failed"]


def _fractions(value: object, *names: str) -> Iterable[Problem]:
    """Yield fields, or items of fields, that are not fractions; None means absent."""
    for name in names:
        given = getattr(value, name)
        for place, one in enumerate(given) if isinstance(given, tuple) else [("", given)]:
            if one is not None:
                yield from within(join(name, place), one, 0, 1)


def _counts(value: object, *names: str) -> Iterable[Problem]:
    """Yield fields that are not counts; None means absent."""
    for name in names:
        if getattr(value, name) is not None:
            yield from at_least(name, getattr(value, name), 0)


@attrs.frozen(kw_only=True)
class LossSummary(Checked):
    """One loss: its mean over the last 100 steps of training, and over the validation images."""

    train_last_100: float | None = None
    validation: float | None = None


@attrs.frozen(kw_only=True)
class FewLabelsSummary(Checked):
    """One probe that was fitted with few labels: an accuracy for each draw of the labelled images."""

    per_class: int
    """Number of labelled images of each class, including held-out ones."""
    trained: tuple[float, ...]
    untrained: tuple[float, ...] | None = None
    raw_pixels: tuple[float, ...] | None = None

    def problems(self) -> Iterable[Problem]:
        """Yield numbers below 1, and scores that are missing or not fractions."""
        yield from at_least("per_class", self.per_class, 1)
        yield from _fractions(self, "trained", "untrained", "raw_pixels")
        if not self.trained:
            yield Problem("trained", "must have an accuracy for each draw, got none")


@attrs.frozen(kw_only=True)
class LayersSummary(Checked):
    """The score of a probe on the averaged outputs of some blocks."""

    layers: tuple[int, ...]
    held_out_top1: float
    """Accuracy on held-out training images, by which blocks are chosen."""
    top1: float

    def problems(self) -> Iterable[Problem]:
        """Yield scores that are not fractions, and negative layers."""
        yield from _fractions(self, "held_out_top1", "top1")
        for place, layer in enumerate(self.layers):
            yield from at_least(f"layers.{place}", layer, 0)


@attrs.frozen(kw_only=True)
class ProbeSummary(Checked):
    """One probe on the trained trunk, with the same probe on the untrained trunk and on raw pixels for comparison."""

    top1: float
    ci95: tuple[float, float] | None = None
    """Ends of Wilson's 95 % interval of ``top1``."""
    bootstrap95: tuple[float, float] | None = None
    """Ends of the 95 % percentile bootstrap interval of ``top1``, over test images. Absent in summaries before 0.2."""
    correct: Correctness | None = None
    """The test images that were classified correctly; for paired differences. Absent in summaries before 0.2."""
    untrained_top1: float | None = None
    raw_pixels_top1: float | None = None
    over_untrained95: tuple[float, float] | None = None
    """Ends of the 95 % percentile bootstrap interval, over test images, of ``top1`` minus ``untrained_top1``."""
    over_raw_pixels95: tuple[float, float] | None = None
    """The same interval of ``top1`` minus ``raw_pixels_top1``."""
    learning_rate: float | None = None
    """The rate chosen on held-out training images."""
    layers: tuple[int, ...] | None = None
    """Indices of the blocks whose outputs were averaged."""
    candidates: tuple[LayersSummary, ...] | None = None
    """The sets of blocks among which ``layers`` were chosen; present in scores of ``probe_every_layer``."""
    few_labels: tuple[FewLabelsSummary, ...] | None = None
    """The same probe with few labels. Absent where ``probe_labels_per_class`` is empty."""

    def problems(self) -> Iterable[Problem]:
        """Yield scores that are not fractions, and negative layers."""
        yield from _fractions(self, "top1", "ci95", "bootstrap95", "untrained_top1", "raw_pixels_top1")
        for place, layer in enumerate(self.layers or ()):
            yield from at_least(f"layers.{place}", layer, 0)

    @property
    def interval95(self) -> tuple[float, float] | None:
        """The 95 % interval that tables and figures show: the bootstrap interval; Wilson's where that is a point."""
        is_point = self.bootstrap95 is None or self.bootstrap95[0] == self.bootstrap95[1]
        return self.ci95 if is_point else self.bootstrap95


@attrs.frozen(kw_only=True)
class EvaluationSummary(Checked):
    """A score of the trained objective, such as a recall: see :class:`aimcore.Score`."""

    value: float
    num: int
    """Number of scored examples."""
    chance: float | None = None
    """Expected value for random guesses."""
    ci95: tuple[float, float] | None = None
    """Ends of the 95 % interval."""

    def problems(self) -> Iterable[Problem]:
        """Yield scores that are not fractions."""
        yield from _fractions(self, "value", "chance", "ci95")
        yield from _counts(self, "num")

    @property
    def interval95(self) -> tuple[float, float] | None:
        """The 95 % interval that tables and figures show."""
        return self.ci95


@attrs.frozen(kw_only=True)
class ParametersSummary(Checked):
    """Numbers of parameters, and of those that were trained."""

    trunk: int
    trunk_trained: int
    total: int
    """Parameters of the trunk and of everything else in the objective."""
    trained: int

    def problems(self) -> Iterable[Problem]:
        """Yield negative numbers."""
        return _counts(self, "trunk", "trunk_trained", "total", "trained")


@attrs.frozen(kw_only=True)
class BudgetSummary(Checked):
    """Size, training samples and training compute of a model."""

    trunk_parameters: int
    parameters: int
    """Parameters of the trunk and of everything that was trained with it."""
    samples: float
    """Training samples; for a branch, including those of the run that it continues."""
    flops: float
    """Training FLOPs as ``aimcore.engine.cost`` counts them; for a branch, including the run that it continues."""

    def problems(self) -> Iterable[Problem]:
        """Yield negative numbers."""
        return _counts(self, "trunk_parameters", "parameters", "samples", "flops")


@attrs.frozen(kw_only=True)
class ScalingSummary(Checked):
    """The curves of a scaling study and their experiments: see :class:`aimcore.Scaling`."""

    curves: Mapping[str, Sequence[str]]
    others: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    loss: str | None = None


@attrs.frozen(kw_only=True)
class LabelPointSummary(Checked):
    """A point of a curve of accuracy against the number of labels: see :class:`aimcore.LabelPoint`."""

    curve: str
    per_class: int
    experiments: tuple[str, ...]
    error: str

    def problems(self) -> Iterable[Problem]:
        """Yield a number of labels below 1."""
        yield from at_least("per_class", self.per_class, 1)


@attrs.frozen(kw_only=True)
class ExperimentSummary(Checked):
    """One experiment of a study."""

    name: str
    status: Status
    seed: int
    num_steps: int | None = None
    """Optimiser steps taken; absent where training failed."""
    losses: Mapping[str, LossSummary] | None = None
    validation_total: float | None = None
    """Weighted sum of the validation losses, as in training; absent if one of them had no target."""
    validation_prefix: int | None = None
    """Prefix length of all validation losses; null if the objective has no prefix."""
    validation_loss_by_chunk: tuple[float | None, ...] | None = None
    """Chunk edges are round(i K / 16); null for a chunk in which nothing is predicted."""
    probes: Mapping[str, ProbeSummary] | None = None
    evaluations: Mapping[str, EvaluationSummary] | None = None
    paper: Mapping[str, float] | None = None
    """The paper's scores by the name of a probe or of an evaluation's score, including those that were not measured."""
    patches_per_second: float | None = None
    seconds: float | None = None
    """Wall time of training."""
    peak_memory: int | None = None
    """Peak memory while training, in bytes, of the process with the largest: of tensors on its GPU, or resident memory
    on a CPU."""
    data_share: float | None = None
    """Share of the time of training steps that was spent waiting for data, of the process that waited longest."""
    parameters: ParametersSummary | None = None
    """Absent where nothing was trained."""
    budget: BudgetSummary | None = None
    """Size and compute of the model; present in scaling studies."""
    left_out: Mapping[str, Mapping[str, int]] | None = None
    """Counts of samples that sources left out, and of failed reads in training and validation: by field of the data
    (``"train"``), then by reason."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Protocol cards of probes and evaluations, the parent run, later probes, and the error."""
    recipe: str
    """Path of the recipe, relative to the summary's folder."""

    def problems(self) -> Iterable[Problem]:
        """Yield negative counts, scores that are not fractions, and a wrong number of chunks."""
        yield from _counts(self, "num_steps", "validation_prefix", "peak_memory")
        if self.data_share is not None:
            yield from within("data_share", self.data_share, 0, 1)
        for name, score in (self.paper or {}).items():
            yield from within(f"paper.{name}", score, 0, 1)
        for field, reasons in (self.left_out or {}).items():
            for reason, count in reasons.items():
                yield from at_least(f"left_out.{field}.{reason}", count, 0)
        chunks = self.validation_loss_by_chunk
        if chunks is not None and len(chunks) != NUM_CHUNKS:
            yield Problem("validation_loss_by_chunk", f"must have {NUM_CHUNKS} items, got {len(chunks)}")

    @property
    def not_run(self) -> tuple[str, ...]:
        """Names of the paper's scores that this experiment has not measured, if it is finished; else none."""
        measured = {*(self.probes or {}), *(self.evaluations or {})}
        return tuple(name for name in self.paper or {} if name not in measured) if self.status == "finished" else ()


@attrs.frozen(kw_only=True)
class Summary(Checked):
    """The results of a study so far."""

    schema_version: int = SCHEMA_VERSION
    study: str
    source: str | None = None
    """Source of the comparison, e.g. ``"arXiv:2401.08541, Table 3b"``."""
    scale: str | None = None
    """The study's scale; absent for a recipe."""
    machine: Mapping[str, Any]
    scaling: ScalingSummary | None = None
    """Present in scaling studies."""
    label_points: tuple[LabelPointSummary, ...] | None = None
    """Present in studies that train with few labels."""
    experiments: tuple[ExperimentSummary, ...] = ()
    paper_only: Mapping[str, Mapping[str, float]] | None = None
    """The paper's scores of rows that are no experiments here."""

    @property
    def not_run(self) -> Mapping[str, Mapping[str, float]]:
        """The paper's scores that nothing here measures, by experiment or row, then by score."""
        of_experiments = {
            one.name: {name: score for name, score in (one.paper or {}).items() if name in one.not_run}
            for one in self.experiments
            if one.not_run
        }
        return {**of_experiments, **(self.paper_only or {})}

    def problems(self) -> Iterable[Problem]:
        """Yield an unknown version of the schema."""
        if self.schema_version != SCHEMA_VERSION:
            yield Problem("schema_version", f"must be {SCHEMA_VERSION}, got {self.schema_version}")

    def of(self, name: str) -> ExperimentSummary | None:
        """Return the entry of the experiment ``name``, or None if the summary has no such experiment."""
        return next((experiment for experiment in self.experiments if experiment.name == name), None)


def _is_present(attribute: attrs.Attribute[Any], value: object) -> bool:
    # Null means "no prefix" here; absence means that it is unknown.
    return value is not None or attribute.name == "validation_prefix"


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Convert the summary to plain values, without absent fields."""
    return attrs.asdict(summary, filter=_is_present)


def write_summary(summary: Summary, path: Path) -> None:
    """Write ``summary`` atomically: a reader finds the old file or the new one."""
    write_atomically(path, json.dumps(summary_to_json(summary), indent=2, allow_nan=False) + "\n")


def read_summary(path: Path) -> Summary:
    """Read and check a ``summary.json``.

    Raises:
        InvalidSummary: it cannot be read, is not JSON, or does not have this schema; the message says where.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSummary(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidSummary(str(path), f"is not JSON: {error}") from error
    try:
        summary: Summary = structure(entry, Summary, lambda *_: Summary)  # it holds no components
    except InvalidValue as error:
        raise InvalidSummary(str(path), str(error)) from error
    return summary
