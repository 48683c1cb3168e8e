"""Where features go while images are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.labels import require_classes
from aimcore.evaluation.feature_tables import FeatureKind, FeatureTable, Rows, Table
from aimcore.evaluation.shared_batches import in_step

T_co = TypeVar("T_co", bound=Table, covariant=True)


class Sink(ABC, Generic[T_co]):
    """Where rows go while images are read.

    ``only``: the sample numbers that are wanted; None takes all.
    """

    def __init__(self, kind: FeatureKind, num_classes: int, only: Tensor | None = None) -> None:
        self.kind, self.num_classes, self.only = kind, num_classes, only

    def add(self, rows: Rows) -> None:
        """Take a batch's rows. Every process calls this equally often, if need be with no rows."""
        wanted = rows if self.only is None else rows.at(torch.isin(rows.numbers, self.only))
        self.write(wanted)

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Keep these rows."""

    @abstractmethod
    def finish(self) -> T_co:
        """The table of all processes' rows.

        Raises:
            InvalidValue: there are none.
        """


class MemorySink(Sink[FeatureTable]):
    """Keeps rows in memory, and exchanges them at the end."""

    def __init__(self, kind: FeatureKind, num_classes: int, only: Tensor | None = None) -> None:
        super().__init__(kind, num_classes, only)
        self._parts: list[Rows] = []

    def write(self, rows: Rows) -> None:
        """Keep these rows."""
        self._parts.append(rows)

    def finish(self) -> FeatureTable:
        """All rows, the same for any split into batches and processes."""
        if not self._parts:
            raise no_images()
        rows = Rows(*map(torch.cat, zip(*self._parts, strict=True))).over_ranks()
        if not len(rows.labels):
            raise no_images()
        return FeatureTable(*rows, num_classes=self.num_classes)


def no_images() -> InvalidValue:
    """The error of a probe without images."""
    return InvalidValue("probe", [("data", "there is no image to take features of")])


def fill(
    sinks: Sequence[Sink[T_co]],
    batches: Iterable[Batch],
    device: torch.device,
    features_of: Callable[[Batch], Sequence[Tensor]],
) -> list[T_co]:
    """Read the batches once, and give every sink its features of each.

    Args:
        sinks: what is wanted.
        batches: this process's share of the labelled images.
        device: where images are read.
        features_of: the features of a batch, one tensor per sink.

    Raises:
        InvalidValue: a batch has no labels, or there is no image at all.
        InvalidLabel: a label is not below the number of classes.
    """
    for given, counts in in_step(batches):
        batch = given.to(device)
        if batch.labels_B is None:
            raise InvalidValue("probe", [("data", "a probe needs labels, and these images have none")])
        require_classes(given, min(sink.num_classes for sink in sinks))
        for sink, features in zip(sinks, features_of(batch), strict=True):
            rows = Rows(features.float().cpu(), batch.labels_B.cpu(), batch.sample_numbers_B.cpu())
            sink.add(rows if counts else rows.at(slice(0)))
    return [sink.finish() for sink in sinks]
