"""One interface to a probe's samples, whether they are in memory or are read in pieces.

Shape suffixes: n all samples, b samples of a batch (lower case).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import prod

import torch
from torch import Generator, Tensor

from aimcore import LabelledFeatures
from aimcore.contracts.probes import FeatureStream

Batch = tuple[Tensor, Tensor]
"""Features ``[b, ...]`` and labels ``[b]``."""

_BATCH_VALUES = 2**24
_MOST_IN_BATCH = 4096


class Samples(ABC):
    """Labelled features that are read in batches."""

    labels: Tensor
    num_classes: int
    shape: tuple[int, ...]
    """The shape of one sample's features."""

    @abstractmethod
    def shuffled(self, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Yield one epoch of whole batches. The samples that fill no batch are left out; they differ between epochs."""

    @abstractmethod
    def in_order(self) -> Iterator[Batch]:
        """Yield every sample once, in batches of a bounded size."""


def samples_of(given: LabelledFeatures | FeatureStream) -> Samples:
    """Wrap the features that a probe receives as samples."""
    return StreamedSamples(given) if isinstance(given, FeatureStream) else SamplesInMemory(given)


class SamplesInMemory(Samples):
    """Features in memory: an epoch is a permutation of all of them."""

    def __init__(self, given: LabelledFeatures) -> None:
        self.features, self.labels = given.features, given.labels
        self.num_classes, self.shape = given.num_classes, tuple(given.features.shape[1:])

    def shuffled(self, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Yield whole batches of a permutation that ``generator`` draws."""
        count = len(self.labels)
        order_n = torch.randperm(count, generator=generator)
        for index_b in torch.split(order_n[: count - count % batch_size], batch_size):
            # Twice as fast as indexing with brackets; this is most of a linear probe's step.
            yield self.features.index_select(0, index_b), self.labels[index_b]

    def in_order(self) -> Iterator[Batch]:
        """Yield slices of the features."""
        yield from _slices(self.features, self.labels, bounded_batch(self.shape), len(self.labels))


class StreamedSamples(Samples):
    """Features that are read in pieces. Samples that fill no batch of a piece go into the next piece's first batch."""

    def __init__(self, stream: FeatureStream) -> None:
        self.stream, self.labels = stream, stream.labels
        self.num_classes, self.shape = stream.num_classes, stream.shape

    def shuffled(self, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Yield whole batches of the pieces; ``generator`` draws their order and shuffles them."""
        features, labels = torch.zeros(0, *self.shape), self.labels[:0]
        for piece in self.stream.pieces(generator):
            features, labels = torch.cat([features, piece.features]), torch.cat([labels, piece.labels])
            whole = len(labels) - len(labels) % batch_size
            yield from _slices(features, labels, batch_size, whole)
            features, labels = features[whole:], labels[whole:]

    def in_order(self) -> Iterator[Batch]:
        """Yield the pieces, cut if they are too large."""
        for piece in self.stream.pieces():
            yield from SamplesInMemory(piece).in_order()


def bounded_batch(shape: tuple[int, ...]) -> int:
    """Return the number of samples of this shape for which a module's intermediate values fit into memory."""
    return min(_MOST_IN_BATCH, max(1, _BATCH_VALUES // prod(shape)))


def _slices(features: Tensor, labels: Tensor, size: int, end: int) -> Iterator[Batch]:
    for start in range(0, end, size):
        stop = min(start + size, end)
        yield features[start:stop], labels[start:stop]
