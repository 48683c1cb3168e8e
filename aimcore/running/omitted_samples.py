"""Omitted samples and files, and reads that failed: counts for the log, the summary and the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from loguru import logger

from aimcore.contracts.messages import counted
from aimcore.contracts.sources import OpenSource, Source
from aimcore.engine.distributed import from_everyone
from aimcore.evaluation.objective_scores import Evaluated
from aimcore.evaluation.probing import ProbeScore
from aimcore.experiment import Data

LeftOut = Mapping[str, Mapping[str, int]]
"""Counts by the source's field of the data, then by reason: ``{"train": {"broken links": 3}}``."""

_REPLACED = "reads that failed in training since it was last started, in whose place others were drawn"
_UNREADABLE = "samples that could not be read"
_NOT_PROBED = "images that probes could not read"
_NOT_EVALUATED = "images that evaluations could not read"
_FIELDS = ("train", "validation", "probe_train", "probe_test")


def left_out_of(data: Data, opened: Callable[[Source], OpenSource]) -> LeftOut:
    """Count what the sources of ``data`` leave out; ``opened`` opens a source."""
    given = {field: getattr(data, field) for field in _FIELDS}
    found = {field: dict(opened(source).left_out) for field, source in given.items() if source is not None}
    return {field: counts for field, counts in found.items() if counts}


def unreadable_of(num_train: int, num_validation: int) -> LeftOut | None:
    """Add up failed reads of all processes; None if there were none. Every process calls this with its own numbers."""
    train, validation = (sum(numbers) for numbers in zip(*from_everyone((num_train, num_validation)), strict=True))
    counts = {"train": {_REPLACED: train}, "validation": {_UNREADABLE: validation}}
    return {field: reasons for field, reasons in counts.items() if any(reasons.values())} or None


def unread_by_probes(data: Data, scores: Collection[ProbeScore]) -> LeftOut | None:
    """Count images that probes could not read, by the source's field of ``data``; None if there are none."""
    fields = {
        "train": "train" if data.probe_train is None else "probe_train",
        "test": "validation" if data.probe_test is None else "probe_test",
    }
    most = {part: max((score.unreadable[part] for score in scores), default=0) for part in fields}
    return {fields[part]: {_NOT_PROBED: number} for part, number in most.items() if number} or None


def not_evaluated(evaluated: Evaluated) -> LeftOut | None:
    """Log and count the images that evaluations could not read; None if there are none.

    Every process calls this with its own results. An image that several evaluations read counts once.
    """
    said = from_everyone({field: set(indices) for field, indices in evaluated.unread.items()})
    unread = {field: set[int]().union(*(own.get(field, ()) for own in said)) for field in _FIELDS}
    counts = {field: {_NOT_EVALUATED: len(indices)} for field, indices in unread.items() if indices}
    log_left_out([counts])
    return counts or None


def joined(*counts: LeftOut | None) -> LeftOut | None:
    """Merge counts field by field; None if there are none."""
    parts = [part for part in counts if part]
    fields = dict.fromkeys(field for part in parts for field in part)
    return {field: {k: v for part in parts for k, v in part.get(field, {}).items()} for field in fields} or None


def log_left_out(experiments: Collection[LeftOut]) -> None:
    """Log a warning about omitted samples, once for all experiments with the same counts."""
    found = [(field, tuple(counts.items())) for one in experiments for field, counts in one.items()]
    for field, reasons in dict.fromkeys(found):
        logger.warning("data.{} leaves out {}", field, counted(reasons))
