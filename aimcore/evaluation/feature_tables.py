"""Tables of features of a source's images, in memory or stored.

Shape suffixes: B batch, N patches, D width; lower-case n is the number of samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.probes import FittedProbe, Pooling, Probe, Reads
from aimcore.contracts.results import LabelledFeatures
from aimcore.engine.distributed import gather_rows


@attrs.frozen
class FeatureKind:
    """The kind of features that a probe reads.

    ``layers``: blocks whose raw outputs are averaged; empty means the trunk's final output, after its last norm.
    ``reads``: ``"tokens"`` ``[n, N, D]`` in raster order, ``"pooled"`` ``[n, D]``, or ``"extra"`` ``[n, R, D]``.
    ``pooling``: the tokens that ``"pooled"`` combines.
    """

    reads: Reads
    layers: tuple[int, ...]
    pooling: Pooling = "mean"

    @classmethod
    def of(cls, probe: Probe, depth: int) -> FeatureKind:
        """Return the kind that ``probe`` reads from a trunk with ``depth`` blocks.

        Raises:
            BrokenContract: the probe reads extra tokens of blocks, whose outputs have none.
        """
        layers = tuple(probe.layers_of(depth))
        if layers and (probe.reads == "extra" or probe.pooling != "mean"):
            raise BrokenContract(
                f"probe {probe.name!r} reads extra tokens, which exist only after the final norm: its "
                f"layers_of must give (), got {layers}"
            )
        return cls(probe.reads, layers, probe.pooling if probe.reads == "pooled" else "mean")


class Rows(NamedTuple):
    """Features of one kind of some samples, with labels and sample numbers."""

    features: Tensor
    labels: Tensor
    numbers: Tensor

    def at(self, where: Tensor | slice) -> Rows:
        """Return the rows selected by ``where``."""
        return Rows(*(values[where] for values in self))

    def over_ranks(self) -> Rows:
        """Return the rows of all processes, sorted by sample number."""
        gathered = Rows(*(gather_rows(values) for values in self))
        return gathered.at(gathered.numbers.argsort(stable=True))


class Table(ABC):
    """One kind of features of samples of a source, sorted by sample number."""

    labels: Tensor
    numbers: Tensor
    num_classes: int

    @abstractmethod
    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """Fit ``probe`` on the samples at positions ``train``, and choose its settings on those at ``held_out``."""

    @abstractmethod
    def places(self, positions: Tensor | None = None) -> Iterator[tuple[Tensor, LabelledFeatures]]:
        """Yield the samples at ``positions`` (by default all) in pieces that fit in memory.

        Each piece comes with the places ``[k]`` of its samples in ``positions``.
        """

    def correct(self, fitted: FittedProbe, positions: Tensor | None = None) -> Tensor:
        """Return whether ``fitted`` classifies each sample at ``positions`` correctly, ``[n]`` bool; by default all."""
        right_n = torch.zeros(len(self.labels) if positions is None else len(positions), dtype=torch.bool)
        for place_k, piece in self.places(positions):
            right_n[place_k] = fitted.predict(piece.features).cpu() == piece.labels
        return right_n


@attrs.frozen(eq=False)
class FeatureTable(Table):
    """Features in memory: float32, on the CPU."""

    features: Tensor
    labels: Tensor
    numbers: Tensor
    num_classes: int

    def of(self, positions: Tensor | None = None) -> LabelledFeatures:
        """Return the samples at ``positions``; by default all."""
        features, labels = self.features, self.labels
        if positions is not None and len(positions) < len(labels):
            features, labels = features.index_select(0, positions), labels[positions]
        return LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)

    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """Fit with the probe's ``fit``."""
        return probe.fit(self.of(train), self.of(held_out), seed)

    def places(self, positions: Tensor | None = None) -> Iterator[tuple[Tensor, LabelledFeatures]]:
        """Yield the samples at ``positions`` in one piece."""
        found = self.of(positions)
        yield torch.arange(len(found.labels)), found
