"""The reverse of another ordering."""

from __future__ import annotations

from torch import Tensor

from aimcore import Ordering, PatchGrid, component
from aimcore_orderings.raster import Raster


@component("reversed")
class Reversed(Ordering):
    """The reverse of another ordering; for example, ``Reversed(of=Spiral())`` goes inwards. Not in the papers.

    >>> Reversed(of=Raster()).permutation(PatchGrid(2, 2)).tolist()
    [3, 2, 1, 0]
    """

    of: Ordering = Raster()

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: the other ordering's permutation, flipped."""
        return self.of.permutation(grid).flip(0)
