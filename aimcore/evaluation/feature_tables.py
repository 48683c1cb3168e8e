"""Tables of features: what a source's images became, in memory or stored.

Shape suffixes: B batch, N patches, D width; lower-case n is the number of samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import attrs
from torch import Tensor

from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.probes import FittedProbe, Pooling, Probe, Reads
from aimcore.contracts.results import LabelledFeatures
from aimcore.engine.distributed import gather_rows


@attrs.frozen
class FeatureKind:
    """What a probe is fed.

    ``layers``: blocks whose raw outputs are averaged; empty stands for the trunk's own output, after its final norm.
    ``reads``: ``"tokens"`` ``[n, N, D]`` in raster order, ``"pooled"`` ``[n, D]``, or ``"extra"`` ``[n, R, D]``.
    ``pooling``: what ``"pooled"`` is made of.
    """

    reads: Reads
    layers: tuple[int, ...]
    pooling: Pooling = "mean"

    @classmethod
    def of(cls, probe: Probe, depth: int) -> FeatureKind:
        """What ``probe`` reads of a trunk of ``depth`` blocks.

        Raises:
            BrokenContract: it reads tokens beside patches of blocks, which have none.
        """
        layers = tuple(probe.layers_of(depth))
        if layers and (probe.reads == "extra" or probe.pooling != "mean"):
            raise BrokenContract(
                f"probe {probe.name!r} reads tokens beside patches, which exist after the final norm only: its "
                f"layers_of must give (), got {layers}"
            )
        return cls(probe.reads, layers, probe.pooling if probe.reads == "pooled" else "mean")


class Rows(NamedTuple):
    """Some samples' features of one kind, with labels and sample numbers."""

    features: Tensor
    labels: Tensor
    numbers: Tensor

    def at(self, where: Tensor | slice) -> Rows:
        """Some of them."""
        return Rows(*(values[where] for values in self))

    def over_ranks(self) -> Rows:
        """Those of all processes, sorted by sample number."""
        gathered = Rows(*(gather_rows(values) for values in self))
        return gathered.at(gathered.numbers.argsort(stable=True))


class Table(ABC):
    """One kind of features of all samples of a source, or of some, sorted by sample number."""

    labels: Tensor
    numbers: Tensor
    num_classes: int

    @abstractmethod
    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """``probe``, fitted on the samples at the positions ``train``, its settings chosen on those at ``held_out``."""

    @abstractmethod
    def pieces(self) -> Iterator[LabelledFeatures]:
        """Every sample once, in order, as many at a time as memory holds."""


@attrs.frozen(eq=False)
class FeatureTable(Table):
    """Features in memory: float32, on the CPU."""

    features: Tensor
    labels: Tensor
    numbers: Tensor
    num_classes: int

    def of(self, positions: Tensor | None = None) -> LabelledFeatures:
        """The samples at ``positions``, or all."""
        features, labels = self.features, self.labels
        if positions is not None and len(positions) < len(labels):
            features, labels = features.index_select(0, positions), labels[positions]
        return LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)

    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """By the probe's ``fit``."""
        return probe.fit(self.of(train), self.of(held_out), seed)

    def pieces(self) -> Iterator[LabelledFeatures]:
        """All at once."""
        yield self.of()
