"""Spiral order: from the centre outwards."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component


@component("spiral", paper="arXiv:2401.08541, Table 3b and Figure 8")
class Spiral(Ordering):
    """From the centre outwards, ending at the top left.

    It is the reverse of the spiral that starts at the top left and goes down, right, up, left and inwards, as in the
    authors' training code.

    >>> Spiral().permutation(PatchGrid(3, 3)).tolist()
    [4, 1, 2, 5, 8, 7, 6, 3, 0]
    """

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: the innermost patch first."""
        left = torch.arange(grid.num_patches).reshape(grid.rows, grid.columns)
        sides = []
        while left.numel():
            sides.append(left[:, 0])
            # A clockwise turn of the remaining grid moves its bottom row to the left side, in walking direction.
            left = left[:, 1:].rot90(-1)
        return torch.cat(sides).flip(0)
