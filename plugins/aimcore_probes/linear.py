"""The linear probe of arXiv:2401.08541."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from torch import Generator

from aimcore import Problem, at_least, component
from aimcore.contracts import limits
from aimcore_probes.grid import GridModule
from aimcore_probes.grid_probe import GridProbe

UNPUBLISHED = "the paper publishes no protocol of its linear probe; its attentive probe's is compared with (Table 11)"
"""A departure of every linear probe."""


@component("linear", paper="arXiv:2401.08541, Tables 3 to 5")
class LinearProbe(GridProbe):
    """BatchNorm without affine, then one linear layer, on the mean token of the last six blocks.

    The paper reports linear probes in Tables 3 to 5, but neither publishes their protocol nor releases them. Settings
    are therefore those of its attentive probe (Table 11), and BatchNorm and bias are choices of this project; the bias
    is not decayed. All learning rates train in one pass; the one with the best held-out accuracy is kept. Departures
    from Table 11, which reports the best of the grid, describes no held-out choice, and augments the images: the
    choice is made on held-out images, and the features are fixed, so nothing is augmented.
    """

    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    weight_decay: float = 0.1

    @property
    def decays(self) -> tuple[float, ...]:
        """The one weight decay."""
        return (self.weight_decay,)

    @classmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """The attentive probe's, of Table 11 of arXiv:2401.08541: its columns for ImageNet and for other data sets."""
        return {
            "Table 11": cls(),
            "Table 11 (ImageNet)": cls(epochs=50, warmup_epochs=5, batch_size=1024),
        }

    def departures(self) -> Iterable[str]:
        """What differs from Table 11, and that it is the attentive probe's table."""
        yield from super().departures()
        yield UNPUBLISHED

    def problems(self) -> Iterable[Problem]:
        """The grid's, and a decay cannot be negative."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0, limits.DECAY)

    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Classifiers of features ``[D]``, all of them zero."""
        from aimcore_probes.linear_module import LinearGrid

        return LinearGrid(shape[0], num_classes, len(self.grid))
