"""A random order, the same for every image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, Problem, at_least, component
from aimcore.contracts.randomness import keyed_bits


@component("fixed_random", paper="arXiv:2401.08541, Table 3b and Figure 8")
class FixedRandom(Ordering):
    """One permutation for every image of a grid, drawn once from ``seed``."""

    seed: int = 0

    def problems(self) -> Iterable[Problem]:
        """Yield a negative seed."""
        yield from at_least("seed", self.seed, 0)

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: a function of the seed and the grid, the same on every machine."""
        purpose = f"fixed_random/{grid.rows}x{grid.columns}"
        bits_N = keyed_bits(self.seed, purpose, np.arange(grid.num_patches))
        return torch.from_numpy(np.argsort(bits_N, kind="stable"))
