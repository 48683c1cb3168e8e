"""Stored features, which are read in pieces.

Lower-case n is the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor

from aimcore.contracts.probes import FeatureStream, FittedProbe, Probe
from aimcore.contracts.results import LabelledFeatures
from aimcore.evaluation.feature_tables import FeatureTable, Table

if TYPE_CHECKING:
    import zarr

PIECE_BYTES = 512 * 2**20
"""Approximate size of the chunks that are read and shuffled together; memory holds a few times as much."""
IN_MEMORY_BYTES = 2 * 2**30
"""Largest size of features that are read into memory before a probe is fitted."""


class StoredTable(Table):
    """Features in a zarr array, labels and numbers in memory."""

    def __init__(self, array: zarr.Array[Any], labels: Tensor, numbers: Tensor, num_classes: int) -> None:
        self._array = array
        self._row_n = numbers.argsort(stable=True)
        self.labels, self.numbers, self.num_classes = labels[self._row_n], numbers[self._row_n], num_classes

    def verify(self) -> None:
        """Read every chunk.

        Raises:
            ValueError: the checksum of a chunk is wrong.
        """
        for _ in self.pieces():
            pass

    def stream(self, positions: Tensor | None = None) -> StoredStream:
        """Return a stream of the samples at ``positions``; by default all."""
        where_n = torch.arange(len(self.labels)) if positions is None else positions
        return StoredStream(self._array, self._row_n[where_n].numpy(), self.labels[where_n], self.num_classes)

    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """Fit with the probe's ``fit``, as without a cache, if the features fit in memory; else with ``fit_stream``."""
        if self._array.nbytes > IN_MEMORY_BYTES:
            return probe.fit_stream(self.stream(train), self.stream(held_out), seed)
        features = torch.from_numpy(np.asarray(self._array[:]))
        if not bool((self._row_n.diff() == 1).all()):
            features = features[self._row_n]
        return FeatureTable(features, self.labels, self.numbers, self.num_classes).fit(probe, train, held_out, seed)

    def pieces(self) -> Iterator[LabelledFeatures]:
        """Yield every sample once, in the order of chunks."""
        return self.stream().pieces()

    def positions(self) -> Tensor:
        """Return the positions of the samples in the order of chunks."""
        return self.stream().positions


class StoredStream(FeatureStream):
    """A stream of some rows of a zarr array.

    To shuffle, chunks are drawn in random order, chunks of about :data:`PIECE_BYTES` are read together, and their rows
    are shuffled. That is less than a permutation of all rows: samples of one chunk stay close to each other, but the
    combination of chunks and the order of rows differ from epoch to epoch.
    """

    def __init__(self, array: zarr.Array[Any], row_n: npt.NDArray[np.int64], labels: Tensor, num_classes: int) -> None:
        self.labels, self.num_classes, self.shape = labels, num_classes, tuple(array.shape[1:])
        self._array, self._row_n = array, row_n
        self._by_chunk_n = np.argsort(row_n // array.chunks[0], kind="stable")
        self.positions = torch.from_numpy(self._by_chunk_n)
        chunks, starts = np.unique((row_n // array.chunks[0])[self._by_chunk_n], return_index=True)
        self._chunks = [*zip(chunks.tolist(), pairwise([*starts.tolist(), len(row_n)]), strict=True)]

    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Yield every sample once, in the order of chunks or shuffled, with a bounded number in memory."""
        order = list(range(len(self._chunks)))
        if generator is not None:
            order = torch.randperm(len(self._chunks), generator=generator).tolist()
        together = max(1, PIECE_BYTES // (prod(self._array.chunks) * self._array.dtype.itemsize))
        for start in range(0, len(order), together):
            read = [self._of_chunk(*self._chunks[index]) for index in order[start : start + together]]
            features, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
            if generator is not None:
                shuffled = torch.randperm(len(labels), generator=generator)
                features, labels = features.index_select(0, shuffled), labels[shuffled]
            yield LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)

    def _of_chunk(self, chunk: int, places: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return features and labels of the selected rows of one chunk."""
        size = self._array.chunks[0]
        where = self._by_chunk_n[slice(*places)]
        rows = np.asarray(self._array[chunk * size : (chunk + 1) * size])
        return torch.from_numpy(rows[self._row_n[where] - chunk * size]), self.labels[torch.from_numpy(where)]
