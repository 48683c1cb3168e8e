"""Writers of features: they receive the features while images are read, and return a table."""

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


class FeatureWriter(ABC, Generic[T_co]):
    """Receives rows of features while images are read.

    ``only``: the sample numbers to keep; None keeps all.
    """

    def __init__(self, kind: FeatureKind, num_classes: int, only: Tensor | None = None) -> None:
        self.kind, self.num_classes, self.only = kind, num_classes, only

    def add(self, rows: Rows) -> None:
        """Add the rows of a batch. Every process calls this the same number of times, possibly with no rows."""
        wanted = rows if self.only is None else rows.at(torch.isin(rows.numbers, self.only))
        self.write(wanted)

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Keep these rows."""

    @abstractmethod
    def finish(self) -> T_co:
        """Return the table of the rows of all processes.

        Raises:
            InvalidValue: there are no rows.
        """


class MemoryWriter(FeatureWriter[FeatureTable]):
    """Keeps rows in memory, and exchanges them at the end."""

    def __init__(self, kind: FeatureKind, num_classes: int, only: Tensor | None = None) -> None:
        super().__init__(kind, num_classes, only)
        self._parts: list[Rows] = []

    def write(self, rows: Rows) -> None:
        """Keep these rows."""
        self._parts.append(rows)

    def finish(self) -> FeatureTable:
        """Return all rows; the result does not depend on the split into batches and processes."""
        if not self._parts:
            raise no_images()
        rows = Rows(*map(torch.cat, zip(*self._parts, strict=True))).over_ranks()
        if not len(rows.labels):
            raise no_images()
        return FeatureTable(*rows, num_classes=self.num_classes)


def no_images() -> InvalidValue:
    """Return the error of a probe without images."""
    return InvalidValue("probe", [("data", "there is no image to take features of")])


def fill(
    writers: Sequence[FeatureWriter[T_co]],
    batches: Iterable[Batch],
    device: torch.device,
    features_of: Callable[[Batch], Iterable[Tensor]],
) -> list[T_co]:
    """Read the batches once, and add the features of each batch to every writer.

    Args:
        writers: they determine the kinds of features.
        batches: this process's share of the labelled images.
        device: the device of the module.
        features_of: computes the features of a batch, one tensor per writer.

    Raises:
        InvalidValue: a batch has no labels, or there is no image at all.
        InvalidLabel: a label is not below the number of classes.
    """
    for given, counts in in_step(batches):
        batch = given.to(device)
        if batch.labels_B is None:
            raise InvalidValue("probe", [("data", "a probe needs labels, and these images have none")])
        require_classes(given, min(writer.num_classes for writer in writers))
        for writer, features in zip(writers, features_of(batch), strict=True):
            rows = Rows(features.float().cpu(), batch.labels_B.cpu(), batch.sample_numbers_B.cpu())
            writer.add(rows if counts else rows.at(slice(0)))
    return [writer.finish() for writer in writers]
