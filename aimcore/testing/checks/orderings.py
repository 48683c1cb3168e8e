"""Orderings: a permutation of every rectangle, always the same."""

from __future__ import annotations

import torch

from aimcore.contracts.orderings import Ordering
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import GRID, some_grids
from aimcore.testing.requirements import explained, require, seeded, shape_of


def check_every_patch_is_read_once(ordering: Ordering) -> None:
    """On any rectangle, every patch occurs exactly once: 1 x 1, lines, squares, 5 x 8, 7 x 7."""
    for grid in some_grids():
        where = f"on {grid.rows} x {grid.columns} patches"
        with explained(f"permutation fails {where}: any rectangle must do"):
            found = ordering.permutation(grid).flatten().tolist()
        require(
            sorted(found) == list(range(grid.num_patches)),
            f"{where} the permutation is not 0 to {grid.num_patches - 1} in some order, but {found[:20]}",
        )


def check_the_permutation_is_int64_on_the_cpu(ordering: Ordering) -> None:
    """One dimension, int64, on the CPU; it is moved to the images' device where it is used."""
    found = ordering.permutation(GRID)
    good = found.dim() == 1 and found.dtype == torch.int64 and found.device.type == "cpu"
    require(good, f"must be [N] int64 on the cpu, got {shape_of(found)} on {found.device}")


def check_the_order_is_the_same_every_time(ordering: Ordering) -> None:
    """The order depends on its fields and the grid alone: ranks, workers and resumed runs must agree."""
    with seeded(1):
        first = ordering.permutation(GRID)
    with seeded(2):
        again = ordering.permutation(GRID)
    require(
        torch.equal(first, again),
        "two calls give different orders: draw from a field `seed` with aimcore.contracts.randomness, not from a "
        "generator",
    )


def check_torchs_generator_is_left_alone(ordering: Ordering) -> None:
    """Nothing is drawn from torch's global generator, nor is it seeded: a run's other numbers would change."""
    with seeded(5):
        before = torch.get_rng_state()
        ordering.permutation(GRID)
        left_alone = torch.equal(before, torch.get_rng_state())
    require(
        left_alone,
        "torch's global generator was used or seeded: use aimcore.contracts.randomness, or a torch.Generator",
    )


CHECKS: tuple[Check, ...] = (
    check_every_patch_is_read_once,
    check_the_permutation_is_int64_on_the_cpu,
    check_the_order_is_the_same_every_time,
    check_torchs_generator_is_left_alone,
)
