"""Helpers of the checks of trunks: build a trunk, and run it on images."""

from __future__ import annotations

from itertools import product

import torch

from aimcore.contracts.assembly import built_trunk
from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.testing.checks import modules
from aimcore.testing.fixtures import GRID, NUM_IMAGES, random_images
from aimcore.testing.requirements import explained, require, seeded

_LARGEST = 32


def grid_of(trunk: Trunk) -> PatchGrid:
    """A small grid that the trunk reads: 3 x 4, or the first it does not refuse."""
    others = (PatchGrid(rows, columns) for rows, columns in product(range(1, _LARGEST + 1), repeat=2))
    fitting = (grid for grid in (GRID, *others) if not tuple(trunk.problems_with(grid)))
    found = next(fitting, None)
    require(
        found is not None, f"problems_with refuses every grid up to {_LARGEST} x {_LARGEST}: give a smaller example"
    )
    assert found is not None
    return found


def build(trunk: Trunk) -> TrunkModule:
    """The module, always with the same weights; float64, evaluation mode."""
    with seeded():
        module: TrunkModule = modules.ready(built_trunk(trunk))
    return module


def images_for(trunk: Trunk, module: TrunkModule, grid: PatchGrid | None = None, *, number: int = NUM_IMAGES) -> Images:
    """Random images that the trunk reads."""
    return random_images(
        grid or grid_of(trunk), patch_size=trunk.patch_size, num_channels=module.num_channels, number=number
    )


def forward(module: TrunkModule, images: Images, reading: Reading | None = None) -> Features:
    """One forward, under a fixed seed."""
    rows, columns = images.grids[0].rows, images.grids[0].columns
    with explained(f"cannot read images of {rows} x {columns} patches, which problems_with does not refuse"), seeded():
        features: Features = module(images, reading or Reading())
    return features


def some_order(num_patches: int, number: int = NUM_IMAGES) -> torch.Tensor:
    """``[B, N]``: a permutation that is no other one's inverse, and another for each image."""
    with seeded(7):
        return torch.stack([torch.randperm(num_patches) for _ in range(number)])
