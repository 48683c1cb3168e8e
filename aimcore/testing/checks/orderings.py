"""Checks of orderings: a fixed permutation for every grid, and orders that depend only on seed and sample number."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.orderings import Ordering
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import GRID, random_images, some_grids
from aimcore.testing.requirements import explained, require, seeded, shape_of


def check_every_patch_is_read_once(ordering: Ordering) -> None:
    """On any rectangle, every patch occurs exactly once: 1 x 1, lines, squares, 5 x 8, 7 x 7."""
    for grid in some_grids():
        where = f"on {grid.rows} x {grid.columns} patches"
        with explained(f"permutation fails {where}: it must accept any rectangular grid"):
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
        _orders(ordering, random_images())
        left_alone = torch.equal(before, torch.get_rng_state())
    require(
        left_alone,
        "torch's global generator was used or seeded: use aimcore.contracts.randomness, or a torch.Generator",
    )


def check_every_image_is_read_in_an_order_of_its_own_patches(ordering: Ordering) -> None:
    """``orders`` gives ``[B, N]`` int64 on the images' device: each row the image's own patches, then the padding."""
    if _is_one_for_all(ordering):
        return
    for images in (random_images(), _mixed(), attrs.evolve(_mixed(), padding_is_image=True), _on_meta(_mixed())):
        found_BN = _orders(ordering, images)
        shape, device = images.patches_BNF.shape[:2], images.patches_BNF.device.type
        good = found_BN.shape == shape and found_BN.dtype == torch.int64 and found_BN.device.type == device
        require(good, f"must be {list(shape)} int64 on {device}, got {shape_of(found_BN)} on {found_BN.device}")
        if device == "meta":
            continue
        for row, length in zip(found_BN.tolist(), images.lengths, strict=True):
            whole = sorted(row[:length]) == list(range(length)) and row[length:] == list(range(length, len(row)))
            require(whole, f"an image of {length} patches among {len(row)} is read in the order {row}")


def check_an_order_depends_on_seed_and_sample_number_alone(ordering: Ordering) -> None:
    """``orders`` gives a sample the same order in any batch, with any pixels: ranks and resumed runs must agree."""
    if _is_one_for_all(ordering):
        return
    images = _mixed()
    with seeded(1):
        first_BN = _orders(ordering, images)
    with seeded(2):
        again_BN = _orders(ordering, images)
    hint = "draw from (seed, sample number) with aimcore.contracts.randomness"
    require(torch.equal(first_BN, again_BN), f"two calls give different orders: {hint}")
    back_BN = _orders(ordering, _flipped(images), torch.arange(len(images.grids)).flip(0))
    require(torch.equal(back_BN.flip(0), first_BN), f"a sample's order depends on its index in the batch: {hint}")
    brighter = attrs.evolve(images, patches_BNF=images.patches_BNF.flip(1) + 1)
    require(
        torch.equal(_orders(ordering, brighter), first_BN),
        f"an order depends on pixels, and reveals patches that were not read yet: {hint}",
    )


def check_the_permutation_is_the_order_of_sample_0(ordering: Ordering) -> None:
    """``permutation(grid)`` is what ``orders`` gives sample number 0 with seed 0: pictures show it."""
    if _is_one_for_all(ordering):
        return
    drawn_N, permutation_N = _orders(ordering, random_images(number=1))[0], ordering.permutation(GRID)
    require(
        torch.equal(drawn_N, permutation_N),
        f"permutation gives {permutation_N.tolist()}, and orders gives sample number 0 {drawn_N.tolist()} with seed 0",
    )


def _is_one_for_all(ordering: Ordering) -> bool:
    """Whether ``orders`` is not overridden, so that the checks of ``permutation`` suffice."""
    return type(ordering).orders is Ordering.orders


def _orders(ordering: Ordering, images: Images, numbers_B: Tensor | None = None) -> Tensor:
    numbers_B = torch.arange(len(images.grids)) if numbers_B is None else numbers_B
    with explained(f"orders fails on images of grids {[(grid.rows, grid.columns) for grid in images.grids]}"):
        return ordering.orders(images, numbers_B, 0)


def _mixed() -> Images:
    """Images of three grids; two of them have padding."""
    return attrs.evolve(random_images(), grids=(GRID, PatchGrid(2, 3), PatchGrid(1, 5)))


def _flipped(images: Images) -> Images:
    return attrs.evolve(images, patches_BNF=images.patches_BNF.flip(0), grids=images.grids[::-1])


def _on_meta(images: Images) -> Images:
    return attrs.evolve(images, patches_BNF=images.patches_BNF.to("meta"))


CHECKS: tuple[Check, ...] = (
    check_every_patch_is_read_once,
    check_the_permutation_is_int64_on_the_cpu,
    check_the_order_is_the_same_every_time,
    check_torchs_generator_is_left_alone,
    check_every_image_is_read_in_an_order_of_its_own_patches,
    check_an_order_depends_on_seed_and_sample_number_alone,
    check_the_permutation_is_the_order_of_sample_0,
)
