"""Raster order: row by row, from the top left."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component


@component("raster", paper="arXiv:2401.08541, section 4.1 and Table 3b")
class Raster(Ordering):
    """Row by row from the top left: the paper's default."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: 0, 1, 2, ..."""
        return torch.arange(grid.num_patches)
