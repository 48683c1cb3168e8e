"""``summary.json``: the measurements of a study, as values that are checked when they are read.

Keys are the names of the fields below. A field that was not configured or not reached is absent. Accuracies and
intervals are fractions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import attrs
from attrs import validators

from aimcore.contracts.errors import InvalidSummary
from aimcore.contracts.messages import shortened, shown
from aimcore.io.atomic_files import write_atomically

SCHEMA_VERSION = 1
NUM_CHUNKS = 16
"""Equal chunks of the reading order for which the validation loss is given. Figure 7 of arXiv:2401.08541 shows chunks,
and does not give their number."""

Status = Literal["finished", "interrupted", "failed"]

T = TypeVar("T")


def _not_bool(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool):
        raise TypeError(f"'{attribute.name}' must be a number, got {value}")


# Typed as Any: mypy cannot infer the type of combined validators.
_number: Any = validators.and_(validators.instance_of((int, float)), _not_bool)
_count: Any = validators.and_(validators.instance_of(int), _not_bool, validators.ge(0))
_fraction: Any = validators.and_(_number, validators.ge(0), validators.le(1))
_text: Any = validators.instance_of(str)
_mapping: Any = validators.instance_of(cast(type, Mapping))
_lists_of_names: Any = validators.deep_mapping(
    _text, validators.deep_iterable(_text, validators.instance_of(tuple)), _mapping
)


def _optional(validator: Any) -> Any:
    return attrs.field(default=None, validator=validators.optional(validator))


def _list_of(validator: Any) -> Any:
    return validators.deep_iterable(validator, validators.instance_of(tuple))


def _exactly(length: int) -> Any:
    return validators.and_(validators.min_len(length), validators.max_len(length))


def _tuple(values: object) -> Any:
    return tuple(values) if isinstance(values, list) else values


def _losses(entries: object) -> Any:
    return _each(LossSummary, entries)


def _probes(entries: object) -> Any:
    return _each(ProbeSummary, entries)


def _evaluations(entries: object) -> Any:
    return _each(EvaluationSummary, entries)


def _each(kind: type[Any], entries: object) -> Any:
    if not isinstance(entries, Mapping):
        return entries
    return {key: _structure(kind, value, key) for key, value in entries.items()}


def _budget(entry: object) -> Any:
    return entry if entry is None else _structure(BudgetSummary, entry, "budget")


def _scaling(entry: object) -> Any:
    return entry if entry is None else _structure(ScalingSummary, entry, "scaling")


def _named_lists(entries: object) -> Any:
    return {key: _tuple(value) for key, value in entries.items()} if isinstance(entries, Mapping) else entries


def _experiments(entries: object) -> Any:
    if not isinstance(entries, list | tuple):
        return entries
    return tuple(_structure(ExperimentSummary, entry, f"experiments[{i}]") for i, entry in enumerate(entries))


@attrs.frozen(kw_only=True)
class LossSummary:
    """One loss: its mean over the last 100 steps of training, and over the validation images."""

    train_last_100: float | None = _optional(_number)
    validation: float | None = _optional(_number)


@attrs.frozen(kw_only=True)
class ProbeSummary:
    """One probe on the trained trunk, with the same probe on the untrained trunk and on raw pixels for comparison."""

    top1: float = attrs.field(validator=_fraction)
    ci95: tuple[float, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=validators.optional([_list_of(_fraction), _exactly(2)])
    )
    """Ends of the 95 % interval of ``top1``."""
    untrained_top1: float | None = _optional(_fraction)
    raw_pixels_top1: float | None = _optional(_fraction)
    learning_rate: float | None = _optional(_number)
    """The rate chosen on held-out training images."""
    layers: tuple[int, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=validators.optional(_list_of(_count))
    )
    """Indices of the blocks whose outputs were averaged."""


@attrs.frozen(kw_only=True)
class EvaluationSummary:
    """A score of the trained objective, such as a recall: see :class:`aimcore.Score`."""

    value: float = attrs.field(validator=_fraction)
    num: int = attrs.field(validator=_count)
    """How many things were judged."""
    chance: float | None = _optional(_fraction)
    """What guessing would give."""
    ci95: tuple[float, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=validators.optional([_list_of(_fraction), _exactly(2)])
    )
    """Ends of the 95 % interval."""


@attrs.frozen(kw_only=True)
class BudgetSummary:
    """What a trained model has had: its size and samples, and the compute that follows from them."""

    trunk_parameters: int = attrs.field(validator=_count)
    parameters: int = attrs.field(validator=_count)
    """Of the trunk and of all that was trained with it."""
    samples: int = attrs.field(validator=_count)
    """Samples seen from the very beginning, also where the run is a branch."""
    flops: int = attrs.field(validator=_count)
    """Training FLOPs from the very beginning, as ``aimcore.engine.cost`` counts them."""


@attrs.frozen(kw_only=True)
class ScalingSummary:
    """Which experiments are the points of which curve: see :class:`aimcore.Scaling`."""

    curves: Mapping[str, tuple[str, ...]] = attrs.field(converter=_named_lists, validator=_lists_of_names)
    others: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_named_lists, validator=_lists_of_names)
    loss: str | None = _optional(_text)


@attrs.frozen(kw_only=True)
class ExperimentSummary:
    """One experiment of a study."""

    name: str = attrs.field(validator=_text)
    status: Status = attrs.field(validator=validators.in_(get_args(Status)))
    seed: int = attrs.field(validator=validators.instance_of(int))
    num_steps: int | None = _optional(_count)
    """Optimiser steps taken; absent where training failed."""
    losses: Mapping[str, LossSummary] | None = attrs.field(
        default=None, converter=_losses, validator=validators.optional(_mapping)
    )
    validation_total: float | None = _optional(_number)
    """Weighted sum of the validation losses, as training adds them up; absent where one of them had no target."""
    validation_prefix: int | None = _optional(_count)
    """Prefix length of every validation loss; null where the objective has no prefix."""
    validation_loss_by_chunk: tuple[float | None, ...] | None = attrs.field(
        default=None,
        converter=_tuple,
        validator=validators.optional([_list_of(validators.optional(_number)), _exactly(NUM_CHUNKS)]),
    )
    """Chunk edges are round(i K / 16); null for a chunk in which nothing is predicted."""
    probes: Mapping[str, ProbeSummary] | None = attrs.field(
        default=None, converter=_probes, validator=validators.optional(_mapping)
    )
    evaluations: Mapping[str, EvaluationSummary] | None = attrs.field(
        default=None, converter=_evaluations, validator=validators.optional(_mapping)
    )
    paper: Mapping[str, float] | None = _optional(validators.deep_mapping(_text, _fraction, _mapping))
    """The paper's score per probe, per score of an evaluation, and of what was not run."""
    patches_per_second: float | None = _optional(_number)
    seconds: float | None = _optional(_number)
    """Wall time of training."""
    budget: BudgetSummary | None = attrs.field(
        default=None, converter=_budget, validator=validators.optional(validators.instance_of(BudgetSummary))
    )
    """What went into training; present in studies of scaling."""
    left_out: Mapping[str, Mapping[str, int]] | None = _optional(
        validators.deep_mapping(_text, validators.deep_mapping(_text, _count, _mapping), _mapping)
    )
    """What the sources of the data found and did not give out, and what could not be read in training and validation:
    counts by reason, by field (``"train"``)."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, validator=_mapping)
    """Protocols of the probes and evaluations, what it began with, what was probed later, and what went wrong."""
    recipe: str = attrs.field(validator=_text)
    """Path of the recipe, relative to the summary's folder."""

    @property
    def not_run(self) -> tuple[str, ...]:
        """What the paper has a score of and this experiment, once finished, has none: neither probe nor evaluation."""
        measured = {*(self.probes or {}), *(self.evaluations or {})}
        return tuple(name for name in self.paper or {} if name not in measured) if self.status == "finished" else ()


@attrs.frozen(kw_only=True)
class Summary:
    """A study as far as it has run."""

    schema_version: int = attrs.field(default=SCHEMA_VERSION, validator=validators.in_((SCHEMA_VERSION,)))
    study: str = attrs.field(validator=_text)
    source: str | None = _optional(_text)
    """Where the comparison comes from, e.g. ``"arXiv:2401.08541, Table 3b"``."""
    scale: str | None = _optional(_text)
    """Absent for a recipe, which does not know its scale."""
    machine: Mapping[str, Any] = attrs.field(validator=_mapping)
    scaling: ScalingSummary | None = attrs.field(
        default=None, converter=_scaling, validator=validators.optional(validators.instance_of(ScalingSummary))
    )
    """Present in studies of scaling."""
    experiments: tuple[ExperimentSummary, ...] = attrs.field(
        default=(), converter=_experiments, validator=validators.instance_of(tuple)
    )

    def of(self, name: str) -> ExperimentSummary | None:
        """The entry of the experiment ``name``; None if there is none."""
        return next((experiment for experiment in self.experiments if experiment.name == name), None)


def _structure(kind: type[T], entry: object, path: str) -> T:
    """Read ``entry`` as ``kind``, naming the path of what is wrong with it."""
    if isinstance(entry, kind):
        return entry
    if not isinstance(entry, Mapping):
        raise InvalidSummary(path, f"must be an object, got {shown(entry)}")
    known = attrs.fields_dict(kind)  # type: ignore[arg-type]
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise InvalidSummary(path, f"unknown keys {shown(unknown)}; known are {sorted(known)}")
    lacking = [name for name, field in known.items() if field.default is attrs.NOTHING and name not in entry]
    if lacking:
        raise InvalidSummary(path, f"lacks {', '.join(lacking)}")
    try:
        return kind(**entry)
    except InvalidSummary as error:
        raise InvalidSummary(f"{path}.{error.path}", error.problem) from error
    except (TypeError, ValueError) as error:
        raise InvalidSummary(path, shortened(str(error.args[0]))) from error


def _is_present(attribute: attrs.Attribute[Any], value: object) -> bool:
    # Null is a value of its own here: "no prefix" is an answer, not an absence.
    return value is not None or attribute.name == "validation_prefix"


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values, without what is absent."""
    return attrs.asdict(summary, filter=_is_present)


def write_summary(summary: Summary, path: Path) -> None:
    """Write ``summary`` so that a reader finds the old file or the new one, never half of one."""
    write_atomically(path, json.dumps(summary_to_json(summary), indent=2, allow_nan=False) + "\n")


def read_summary(path: Path) -> Summary:
    """Read and check a ``summary.json``.

    Raises:
        InvalidSummary: it cannot be read, is no JSON, or not of this schema; the message says where.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSummary(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidSummary(str(path), f"is no JSON: {error}") from error
    return _structure(Summary, entry, str(path))
