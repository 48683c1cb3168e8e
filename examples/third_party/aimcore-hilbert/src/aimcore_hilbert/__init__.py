"""Hilbert-curve ordering for aimcore: the module that this distribution's entry point names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component, hookimpl
from aimcore_hilbert.curve import hilbert


@component("hilbert", paper="Hilbert, Mathematische Annalen 38 (1891), pp. 459-460")
class Hilbert(Ordering):
    """Along a Hilbert curve, which keeps patches that are near each other near in the sequence. Any rectangle will do.

    It begins at the top left, and every step goes to a patch beside, above or below the last. An idea of this plugin's
    own: the papers do not try it.
    """

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: the raster index of each patch along the curve."""
        return torch.tensor([row * grid.columns + column for row, column in hilbert(grid.rows, grid.columns)])


@hookimpl
def orderings() -> Sequence[type[Ordering]]:
    """The orderings that this plugin supplies."""
    return [Hilbert]


__all__ = ["Hilbert", "hilbert"]
