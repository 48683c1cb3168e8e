"""The linear probe of arXiv:2401.08541."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from torch import Generator

from aimcore import Problem, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.probes import Pooling, Reads
from aimcore_probes.grid import GridModule
from aimcore_probes.grid_probe import GridProbe

UNPUBLISHED = "the paper publishes no protocol of its linear probe; Table 11, of its attentive probe, is compared with"
"""Departure of every linear probe."""


@component("linear", paper="arXiv:2401.08541, Tables 3 to 5")
class LinearProbe(GridProbe):
    """BatchNorm without affine, then one linear layer, by default on the mean token of the last six blocks.

    The paper reports linear probes in Tables 3 to 5, but publishes neither their protocol nor their weights. Settings
    are therefore those of its attentive probe (Table 11). BatchNorm and bias are choices of this project; the bias is
    not decayed. All learning rates train in one pass; the one with the best held-out accuracy is kept. Departures from
    Table 11, which reports the best of the grid, describes no held-out choice, and augments the images: the rate is
    chosen on held-out images, and the features are fixed, so nothing is augmented.
    """

    reads: ClassVar[Reads] = "pooled"
    weight_decay: float = 0.1
    pool: Pooling = "mean"
    """What is classified: the mean over patches, as in the paper; the class token of a trunk that has one; or both, one
    behind the other. The class token is the trunk's own output, after its final norm, and so is the mean beside it:
    ``layers`` must then be ``None`` or ``()``."""

    @property
    def pooling(self) -> Pooling:
        """``pool``."""
        return self.pool

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """As every grid probe, but none where a class token is read."""
        return super().layers_of(depth) if self.pool == "mean" else ()

    @property
    def decays(self) -> tuple[float, ...]:
        """The only weight decay."""
        return (self.weight_decay,)

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Return the attentive probe's protocol: arXiv:2401.08541, Table 11, for ImageNet and other data sets."""
        return {
            "Table 11": cls(),
            "Table 11 (ImageNet)": cls(epochs=50, warmup_epochs=5, batch_size=1024),
        }

    def departures(self) -> Iterable[str]:
        """Yield the departures from Table 11, and that it is the table of the attentive probe."""
        yield from super().departures()
        yield UNPUBLISHED
        if self.pool != "mean":
            yield f"what is classified is {self.pool!r} of the trunk's own output; the paper averages patches"

    def problems(self) -> Iterable[Problem]:
        """Yield problems of the grid, and a negative decay."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0, limits.DECAY)
        if self.pool != "mean" and self.layers:
            yield Problem("layers", f"must be null with pool={self.pool!r}: blocks have no class token")

    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Build classifiers of features ``[D]``, initialized with zeros."""
        from aimcore_probes.linear_module import LinearGrid

        return LinearGrid(shape[0], num_classes, len(self.grid))
