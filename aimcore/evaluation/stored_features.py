"""Stored features, which are read in pieces.

Lower-case n is the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.probes import FeatureStream, FittedProbe, Probe
from aimcore.contracts.results import LabelledFeatures
from aimcore.evaluation.feature_tables import Table

if TYPE_CHECKING:
    import zarr

    Rows = zarr.Array[Any]

PIECE_BYTES = 512 * 2**20
"""Approximate size of the chunks that are read and shuffled together; memory holds a few times as much."""
IN_MEMORY_BYTES = 2 * 2**30
"""Largest size of features that are read into memory before a probe is fitted."""


class StoredTable(Table):
    """Features in zarr arrays, whose mean is taken when they are read; labels and numbers in memory.

    A table of one array has the features as they were stored. Arrays of several layers, with the same samples in the
    same rows, give the average of these layers, which then need not be stored too.
    """

    def __init__(self, arrays: Sequence[Rows], labels: Tensor, numbers: Tensor, num_classes: int) -> None:
        self.arrays = tuple(arrays)
        self._row_n = numbers.argsort(stable=True)
        self.stored_numbers = numbers
        self.labels, self.numbers, self.num_classes = labels[self._row_n], numbers[self._row_n], num_classes

    @classmethod
    def average(cls, tables: Sequence[StoredTable]) -> StoredTable:
        """Return the average of the tables of several layers.

        Raises:
            InvalidValue: their samples are not stored in the same order.
        """
        first, arrays = tables[0], [array for table in tables for array in table.arrays]
        if not all(torch.equal(table.stored_numbers, first.stored_numbers) for table in tables):
            message = "has the features of several layers in different orders: give another one, or empty it"
            raise InvalidValue("probe", [("cache_url", message)])
        inverse_n = first._row_n.argsort()
        return cls(arrays, first.labels[inverse_n], first.stored_numbers, first.num_classes)

    def verify(self) -> None:
        """Read every chunk.

        Raises:
            ValueError: the checksum of a chunk is wrong.
        """
        for _ in self.places():
            pass

    def stream(self, positions: Tensor | None = None) -> StoredStream:
        """Return a stream of the samples at ``positions``; by default all."""
        where_n = torch.arange(len(self.labels)) if positions is None else positions
        return StoredStream(self.arrays, self._row_n[where_n].numpy(), self.labels[where_n], self.num_classes)

    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """Fit with the probe's ``fit``, as without a cache, if the features fit in memory; else with ``fit_stream``."""
        if self.arrays[0].nbytes > IN_MEMORY_BYTES:
            return probe.fit_stream(self.stream(train), self.stream(held_out), seed)
        return probe.fit(self.of(train), self.of(held_out), seed)

    def of(self, positions: Tensor) -> LabelledFeatures:
        """Read the samples at ``positions`` into memory, chunk by chunk, so that nothing is there twice."""
        features = torch.empty(len(positions), *self.arrays[0].shape[1:])
        for place_k, piece in self.places(positions):
            features[place_k] = piece.features
        return LabelledFeatures(features=features, labels=self.labels[positions], num_classes=self.num_classes)

    def places(self, positions: Tensor | None = None) -> Iterator[tuple[Tensor, LabelledFeatures]]:
        """Yield the samples at ``positions`` chunk by chunk, each with its place in ``positions``."""
        return self.stream(positions).chunks()


class StoredStream(FeatureStream):
    """A stream of some rows of zarr arrays of equal shape and chunks; several arrays are averaged.

    To shuffle, chunks are drawn in random order, chunks of about :data:`PIECE_BYTES` are read together, and their rows
    are shuffled. That is less than a permutation of all rows: samples of one chunk stay close to each other, but the
    combination of chunks and the order of rows differ from epoch to epoch.
    """

    def __init__(self, arrays: Sequence[Rows], row_n: npt.NDArray[np.int64], labels: Tensor, num_classes: int) -> None:
        self.labels, self.num_classes, self.shape = labels, num_classes, tuple(arrays[0].shape[1:])
        self._arrays, self._row_n = tuple(arrays), row_n
        self._chunk_rows = arrays[0].chunks[0]
        self._by_chunk_n = np.argsort(row_n // self._chunk_rows, kind="stable")
        chunks, starts = np.unique((row_n // self._chunk_rows)[self._by_chunk_n], return_index=True)
        self._chunks = [*zip(chunks.tolist(), pairwise([*starts.tolist(), len(row_n)]), strict=True)]

    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Yield every sample once, in the order of chunks or shuffled, with a bounded number in memory."""
        order = list(range(len(self._chunks)))
        if generator is not None:
            order = torch.randperm(len(self._chunks), generator=generator).tolist()
        together = max(1, PIECE_BYTES // (self._chunk_rows * prod(self.shape) * self._arrays[0].dtype.itemsize))
        for start in range(0, len(order), together):
            read = [self._of_chunk(*self._chunks[index]) for index in order[start : start + together]]
            features, labels = (torch.cat(parts) for parts in list(zip(*read, strict=True))[1:])
            del read  # else memory holds every piece twice
            if generator is not None:
                shuffled = torch.randperm(len(labels), generator=generator)
                features, labels = features.index_select(0, shuffled), labels[shuffled]
            yield LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)

    def chunks(self) -> Iterator[tuple[Tensor, LabelledFeatures]]:
        """Yield the samples chunk by chunk, with their places ``[k]`` in this stream."""
        for index in range(len(self._chunks)):
            place_k, features, labels = self._of_chunk(*self._chunks[index])
            yield place_k, LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)

    def _of_chunk(self, chunk: int, bounds: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return places, features and labels of the selected rows of one chunk."""
        where = self._by_chunk_n[slice(*bounds)]
        rows = self._row_n[where] - chunk * self._chunk_rows
        place_k = torch.from_numpy(where)
        return place_k, self._mean(chunk, rows), self.labels[place_k]

    def _mean(self, chunk: int, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the mean over the arrays, summed as :mod:`aimcore.evaluation.feature_extraction` sums layers."""
        part = slice(chunk * self._chunk_rows, (chunk + 1) * self._chunk_rows)
        first, *others = (torch.from_numpy(np.asarray(array[part])[rows]) for array in self._arrays)
        for other in others:
            first += other
        return first.div_(len(self._arrays)) if others else first
