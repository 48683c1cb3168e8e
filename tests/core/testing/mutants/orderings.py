"""Orderings, each broken in one way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, component
from aimcore.testing.checks import orderings as checks


@component("sound")
class Sound(Ordering):
    """Raster order."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches)


@component("mutant")
class Square(Sound):
    """Takes every grid for a square."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.rows**2)


@component("mutant")
class Short(Sound):
    """Gives int32."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches, dtype=torch.int32)


@component("mutant")
class Fickle(Sound):
    """Draws another order each time."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.from_numpy(np.random.default_rng().permutation(grid.num_patches))


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator to be the same every time."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        torch.manual_seed(0)
        return torch.randperm(grid.num_patches)


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_every_patch_is_read_once, Square()),
    (checks.check_the_permutation_is_int64_on_the_cpu, Short()),
    (checks.check_the_order_is_the_same_every_time, Fickle()),
    (checks.check_torchs_generator_is_left_alone, Reseeding()),
)
