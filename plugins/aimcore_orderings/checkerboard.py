"""Checkerboard order: every other patch, then the ones between."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component


@component("checkerboard", paper="arXiv:2401.08541, Table 3b and Figure 8")
class Checkerboard(Ordering):
    """All patches whose row + column is even, in raster order, then all odd ones, in raster order.

    >>> Checkerboard().permutation(PatchGrid(3, 3)).tolist()
    [0, 2, 4, 6, 8, 1, 3, 5, 7]
    """

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: even cells, then odd ones."""
        index_N = torch.arange(grid.num_patches)
        parity_N = (index_N // grid.columns + index_N % grid.columns) % 2
        return parity_N.argsort(stable=True)
