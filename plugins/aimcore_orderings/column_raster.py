"""Column raster order: column by column, from the top left."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component


@component("column_raster")
class ColumnRaster(Ordering):
    """Column by column from the top left: raster order of the transposed grid. Not in the papers.

    >>> ColumnRaster().permutation(PatchGrid(2, 3)).tolist()
    [0, 3, 1, 4, 2, 5]
    """

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: down the first column, then the next."""
        return torch.arange(grid.num_patches).reshape(grid.rows, grid.columns).T.flatten()
