"""Targets: what patches are predicted as, and what a prediction costs.

Shape suffixes: B batch, N patches, F values per patch, M scored positions, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.targets import Target
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import (
    GRID,
    NUM_IMAGES,
    batch_of,
    copy_of,
    on_meta,
    part_of,
    random_images,
    with_changed_patch,
)
from aimcore.testing.requirements import TOLERANCE, differs, explained, require, same, seeded, shape_of


def check_num_outputs_is_a_positive_whole_number(target: Target) -> None:
    """``num_outputs`` is an int of at least 1, whatever the patch."""
    for patch_size, num_channels in ((4, 3), (7, 3), (4, 1)):
        found = target.num_outputs(patch_size, num_channels)
        require(
            type(found) is int and found > 0,
            f"num_outputs({patch_size}, {num_channels}) must be a positive int, got {found!r}",
        )


def check_values_have_one_row_per_patch(target: Target) -> None:
    """``values`` are ``[B, N, F]`` floats or ``[B, N]`` int64 codes."""
    values = target.values(_batch(target))
    floats = values.dim() == 3 and values.is_floating_point()
    codes = values.dim() == 2 and values.dtype == torch.int64
    require(
        values.shape[:2] == (NUM_IMAGES, GRID.num_patches) and (floats or codes),
        f"values of {NUM_IMAGES} images of {GRID.num_patches} patches must be [B, N, F] floats or [B, N] int64 codes, "
        f"got {shape_of(values)}",
    )


def check_values_stand_in_raster_order(target: Target) -> None:
    """Changing a patch changes its own row of ``values``: objectives put them in reading order themselves."""
    batch = _batch(target)
    values = _rows(target.values(batch))
    moved = []
    for patch in range(GRID.num_patches):
        rows = differs(values, _rows(target.values(with_changed_patch(batch, patch)))).any(-1).any(0)
        moved.append(bool(rows.any()))
        require(
            bool(rows[patch]) or not moved[-1],
            f"changing patch {patch} changes values {rows.nonzero().flatten().tolist()}, but not its own: rows of "
            "values are raster indices (row * columns + column)",
        )
    require(any(moved), "values do not depend on the images")


def check_values_depend_on_their_own_patch_alone(target: Target) -> None:
    """No other patch has a part in a row of ``values``: it would be read before what it is part of is predicted."""
    batch = _batch(target)
    values = _rows(target.values(batch))
    for patch in range(GRID.num_patches):
        rows = differs(values, _rows(target.values(with_changed_patch(batch, patch)))).any(-1).any(0)
        others = [row for row in rows.nonzero().flatten().tolist() if row != patch]
        require(
            not others or not rows[patch],  # in another order altogether: that has its own check
            f"values of patches {others} change with patch {patch}: cut the image into patches before anything else",
        )


def check_values_of_an_image_depend_on_it_alone(target: Target) -> None:
    """An image has the same values in any batch."""
    batch = _batch(target)
    together, alone = target.values(batch)[:1], target.values(part_of(batch, 0, 1))
    require(same(together, alone), "an image's values depend on the other images of its batch")


def check_values_carry_no_gradient(target: Target) -> None:
    """``values`` are constants: a network in the target is frozen, and runs under ``torch.no_grad()``."""
    require(not target.values(_batch(target)).requires_grad, "values require a gradient: wrap them in torch.no_grad()")


def check_values_leave_the_batch_as_it_was(target: Target) -> None:
    """Nothing is changed in place: trunk and target read the same pixels."""
    batch = _batch(target)
    before = copy_of(batch)
    target.values(batch)
    changed = [key for key, view in batch.views.items() if not torch.equal(view, before.views[key])]
    if not torch.equal(batch.images.patches_BNF, before.images.patches_BNF):
        changed.append("images.patches_BNF")
    require(not changed, f"values changes batch {changed} in place: work on a copy")


def check_a_loss_is_one_number_per_scored_patch(target: Target) -> None:
    """``loss`` gives ``[M]``, unreduced."""
    predictions_MK, values_M = _predicted(target)
    found = target.loss(predictions_MK, values_M)
    require(
        found.shape == values_M.shape[:1] and found.is_floating_point(),
        f"loss of {len(values_M)} patches must be [{len(values_M)}] floats, got {shape_of(found)}: reduce over each "
        "patch's values, not over patches",
    )


def check_a_patchs_loss_depends_on_it_alone(target: Target) -> None:
    """A patch costs the same whatever else is scored with it."""
    predictions_MK, values_M = _predicted(target)
    together, alone = target.loss(predictions_MK, values_M)[:5], target.loss(predictions_MK[:5], values_M[:5])
    require(same(together, alone), "a patch's loss depends on the other scored patches")


def check_right_predictions_cost_least(target: Target) -> None:
    """Exact values cost nothing; of all codes the right one costs least; other targets are not judged."""
    values_M = target.values(_batch(target)).detach().flatten(0, 1)
    num_outputs = int(target.num_outputs(4, 3))
    if values_M.dim() == 1:
        right, wrong = (target.loss(_certain(values_M + shift, num_outputs), values_M) for shift in (0, 1))
        require(num_outputs == 1 or bool((right < wrong).all()), "a wrong code costs no more than the right one")
    elif values_M.shape[1] == num_outputs:
        right = target.loss(values_M, values_M).abs().max()
        require(right <= TOLERANCE, f"exact predictions cost {right:.3g}, not 0")


def check_codes_are_below_num_outputs(target: Target) -> None:
    """Codes lie in [0, K)."""
    values = target.values(_batch(target))
    if values.is_floating_point():
        return
    low, high, num_outputs = int(values.min()), int(values.max()), int(target.num_outputs(4, 3))
    require(low >= 0 and high < num_outputs, f"codes lie between {low} and {high}, but num_outputs is {num_outputs}")


def check_following_the_gradient_lowers_the_loss(target: Target) -> None:
    """Predictions get a finite gradient, and a small step against it lowers the loss."""
    predictions_MK, values_M = _predicted(target)
    leaf = predictions_MK.clone().requires_grad_()
    before = target.loss(leaf, values_M).sum()
    with explained("predictions get no gradient: loss must be differentiable in them"):
        (gradient,) = torch.autograd.grad(before, leaf)
    lower = target.loss(leaf - 1e-3 * gradient / gradient.abs().max(), values_M).sum()
    require(
        lower < before, f"a step against the gradient leads from {before:.6g} to {lower:.6g}: the gradient is wrong"
    )


def check_the_gradient_is_finite_at_exact_predictions(target: Target) -> None:
    """No infinity or NaN where a prediction equals its values (as the derivative of sqrt at 0)."""
    values_M = target.values(_batch(target)).detach().flatten(0, 1)
    if values_M.dim() == 1 or values_M.shape[1] != int(target.num_outputs(4, 3)):
        return
    leaf = values_M.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.loss(leaf, values_M).sum(), leaf, allow_unused=True)
    require(gradient is None or bool(gradient.isfinite().all()), "the gradient at exact predictions is not finite")


def check_patches_of_one_colour_have_finite_losses(target: Target) -> None:
    """Flat patches, such as white background, have finite values and losses."""
    batch = _batch(target)
    batch.images.patches_BNF.fill_(0.5)
    for view in batch.views.values():
        view.fill_(0.5)
    predictions_MK, _ = _predicted(target)
    values_M = target.values(batch).flatten(0, 1)
    finite = values_M.isfinite().all() and target.loss(predictions_MK, values_M).isfinite().all()
    require(
        bool(finite),
        "values or losses of a flat patch are not finite: its variance or norm is 0; add a small number first",
    )


def check_any_patch_size_and_number_of_channels_will_do(target: Target) -> None:
    """Values, ``num_outputs`` and loss fit each other for other patches and for grey images."""
    for patch_size, num_channels in ((7, 3), (4, 1)):
        where = f"patches of {patch_size} px with {num_channels} channels"
        with explained(f"fails for {where}: use what num_outputs is given, and the shape of the patches"):
            predictions_MK, values_M = _predicted(target, patch_size, num_channels)
            target.loss(predictions_MK, values_M)


def check_pictures_are_patches_or_refused(target: Target) -> None:
    """``to_patches`` gives ``[B, N, F]`` pixels, or raises NotImplementedError."""
    batch = _batch(target)
    patches_BNF = batch.images.patches_BNF
    predictions_MK, _ = _predicted(target)
    predictions_BNK = predictions_MK.reshape(NUM_IMAGES, GRID.num_patches, -1)
    try:
        picture = target.to_patches(predictions_BNK, patches_BNF)
    except NotImplementedError:
        return
    require(picture.shape == patches_BNF.shape, f"to_patches must give [B, N, F] pixels, got {shape_of(picture)}")


def check_a_dry_run_can_count_it(target: Target) -> None:
    """Values and losses have shapes without pixels (on the meta device), as ``--dry-run`` needs."""
    with explained("fails without pixels: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        values_M = target.values(on_meta(_batch(target))).flatten(0, 1)
        target.loss(torch.empty(len(values_M), int(target.num_outputs(4, 3)), device="meta"), values_M)


CHECKS: tuple[Check, ...] = (
    check_num_outputs_is_a_positive_whole_number,
    check_values_have_one_row_per_patch,
    check_values_stand_in_raster_order,
    check_values_depend_on_their_own_patch_alone,
    check_values_of_an_image_depend_on_it_alone,
    check_values_carry_no_gradient,
    check_values_leave_the_batch_as_it_was,
    check_a_loss_is_one_number_per_scored_patch,
    check_a_patchs_loss_depends_on_it_alone,
    check_right_predictions_cost_least,
    check_codes_are_below_num_outputs,
    check_following_the_gradient_lowers_the_loss,
    check_the_gradient_is_finite_at_exact_predictions,
    check_patches_of_one_colour_have_finite_losses,
    check_any_patch_size_and_number_of_channels_will_do,
    check_pictures_are_patches_or_refused,
    check_a_dry_run_can_count_it,
)


def _batch(target: Target, patch_size: int = 4, num_channels: int = 3) -> Batch:
    return batch_of(random_images(patch_size=patch_size, num_channels=num_channels), target.views)


def _predicted(target: Target, patch_size: int = 4, num_channels: int = 3) -> tuple[Tensor, Tensor]:
    """Random predictions ``[M, K]``, and the values ``[M]`` or ``[M, F]`` of all patches."""
    values_M = target.values(_batch(target, patch_size, num_channels)).detach().flatten(0, 1)
    with seeded(1):  # not the images' seed: predictions would be exact
        shape = NUM_IMAGES * GRID.num_patches, int(target.num_outputs(patch_size, num_channels))
        predictions_MK = torch.randn(shape, dtype=torch.float64)
    return predictions_MK, values_M


def _rows(values: Tensor) -> Tensor:
    """Values and codes alike as ``[B, N, F]``."""
    return values if values.dim() == 3 else values.unsqueeze(-1)


def _certain(codes_M: Tensor, num_outputs: int) -> Tensor:
    """Logits that leave no doubt."""
    return torch.nn.functional.one_hot(codes_M.long() % num_outputs, num_outputs).double() * 20
