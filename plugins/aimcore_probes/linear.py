"""The linear probe of arXiv:2401.08541."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from aimcore import Problem, at_least, component, limits
from aimcore_probes.grid_probe import GridProbe

if TYPE_CHECKING:
    from torch import Generator

    from aimcore_probes.grid import GridModule


@component("linear", paper="arXiv:2401.08541, Table 11")
class LinearProbe(GridProbe):
    """BatchNorm without affine, then one linear layer, on the mean token of the last six blocks.

    All learning rates train in one pass; the one with the best held-out accuracy is kept. Departures from the paper,
    which reports the best of the grid, describes no held-out choice, and augments the images: the choice is made on
    held-out images, and the features are fixed, so nothing is augmented. The released attentive probe's classifier
    has no bias; the linear probe was not released, and this one has a bias, which is not decayed.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    weight_decay: float = 0.1

    @property
    def decays(self) -> tuple[float, ...]:
        """The one weight decay."""
        return (self.weight_decay,)

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Table 11 of arXiv:2401.08541: its columns for ImageNet and for the other data sets."""
        return {
            "Table 11": cls(),
            "Table 11 (ImageNet)": cls(epochs=50, warmup_epochs=5, batch_size=1024),
        }

    def problems(self) -> Iterable[Problem]:
        """The grid's, and a decay cannot be negative."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0, limits.DECAY)

    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Classifiers of features ``[D]``, all of them zero."""
        from aimcore_probes.linear_module import LinearGrid

        return LinearGrid(shape[0], num_classes, len(self.grid))
