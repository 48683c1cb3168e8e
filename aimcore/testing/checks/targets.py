"""Checks of targets: the values of patches, and the loss of predictions.

Shape suffixes: B batch, N patches, F values per patch, M scored positions, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore.contracts.assembly import built_target
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import AimcoreError, BrokenContract
from aimcore.contracts.targets import Target, TargetModule
from aimcore.testing.checks import Check, modules
from aimcore.testing.fixtures import (
    GRID,
    NUM_IMAGES,
    as_float32,
    batch_of,
    copy_of,
    on_meta,
    part_of,
    random_images,
    with_changed_patch,
)
from aimcore.testing.requirements import TOLERANCE, differs, explained, require, same, seeded, shape_of


def check_num_outputs_is_a_positive_whole_number(target: Target) -> None:
    """``num_outputs`` is an int of at least 1 for every patch size and number of channels."""
    for patch_size, num_channels in ((4, 3), (7, 3), (4, 1)):
        found = target.num_outputs(patch_size, num_channels)
        require(
            type(found) is int and found > 0,
            f"num_outputs({patch_size}, {num_channels}) must be a positive int, got {found!r}",
        )


def check_values_have_one_row_per_patch(target: Target) -> None:
    """``values`` are ``[B, N, F]`` floats or ``[B, N]`` int64 codes."""
    values = _values(target)
    floats = values.dim() == 3 and values.is_floating_point()
    codes = values.dim() == 2 and values.dtype == torch.int64
    require(
        values.shape[:2] == (NUM_IMAGES, GRID.num_patches) and (floats or codes),
        f"values of {NUM_IMAGES} images of {GRID.num_patches} patches must be [B, N, F] floats or [B, N] int64 codes, "
        f"got {shape_of(values)}",
    )


def check_values_are_in_raster_order(target: Target) -> None:
    """Changing a patch changes its own row of ``values``: objectives put them in reading order themselves."""
    batch, values_of = _batch(target), built(target).forward
    given = values_of(batch)
    values, values_are_floats = _rows(given), given.is_floating_point()
    moved = []
    for patch in range(GRID.num_patches):
        rows = differs(values, _rows(values_of(with_changed_patch(batch, patch)))).any(-1).any(0)
        moved.append(bool(rows.any()))
        if target.sees == "image" and not values_are_floats:  # another patch's code may change without its own
            continue
        require(
            bool(rows[patch]) or not moved[-1],
            f"changing patch {patch} changes values {rows.nonzero().flatten().tolist()}, but not its own: rows of "
            "values are raster indices (row * columns + column)",
        )
    require(any(moved), "values do not depend on the images")


def check_values_depend_on_what_it_sees(target: Target) -> None:
    """``sees`` is ``"patch"`` if values depend on their own patch alone, and ``"image"`` if some depend on others."""
    require(target.sees in ("patch", "image"), f"sees must be 'patch' or 'image', got {target.sees!r}")
    batch, values_of = _batch(target), built(target).forward
    values = _rows(values_of(batch))
    seen: list[tuple[list[int], int]] = []
    for patch in range(GRID.num_patches):
        rows = differs(values, _rows(values_of(with_changed_patch(batch, patch)))).any(-1).any(0)
        others = [row for row in rows.nonzero().flatten().tolist() if row != patch]
        # In another order altogether: that has its own check.
        seen += [(others, patch)] if others and (rows[patch] or target.sees == "image") else []
    if target.sees == "image":
        require(bool(seen), "sees is 'image', but no value depends on another patch than its own: say 'patch'")
    elif seen:
        others, patch = seen[0]
        raise AssertionError(
            f"values of patches {others} change with patch {patch}: cut the image into patches before anything else, "
            "or say sees = 'image', so that objectives name the patch that each step scores"
        )


def check_values_of_an_image_depend_on_it_alone(target: Target) -> None:
    """An image has the same values in any batch."""
    batch, values_of = _batch(target), built(target).forward
    together, alone = values_of(batch)[:1], values_of(part_of(batch, 0, 1))
    require(same(together, alone), "an image's values depend on the other images of its batch")


def check_values_carry_no_gradient(target: Target) -> None:
    """``values`` are constants: a network in the target is frozen, and runs under ``torch.no_grad()``."""
    require(not _values(target).requires_grad, "values require a gradient: wrap them in torch.no_grad()")


def check_values_leave_the_batch_as_it_was(target: Target) -> None:
    """Nothing is changed in place: trunk and target read the same pixels."""
    batch = _batch(target)
    before = copy_of(batch)
    built(target).forward(batch)
    changed = [key for key, view in batch.views.items() if not torch.equal(view, before.views[key])]
    if not torch.equal(batch.images.patches_BNF, before.images.patches_BNF):
        changed.append("images.patches_BNF")
    require(not changed, f"values changes batch {changed} in place: work on a copy")


def check_a_loss_is_one_number_per_scored_patch(target: Target) -> None:
    """``loss`` gives ``[M]``, unreduced."""
    predictions_MK, values_M = _predicted(target)
    found = built(target).loss(predictions_MK, values_M)
    require(
        found.shape == values_M.shape[:1] and found.is_floating_point(),
        f"loss of {len(values_M)} patches must be [{len(values_M)}] floats, got {shape_of(found)}: reduce over each "
        "patch's values, not over patches",
    )


def check_a_patchs_loss_depends_on_it_alone(target: Target) -> None:
    """A patch's loss is independent of the other scored patches."""
    predictions_MK, values_M = _predicted(target)
    together, alone = (
        built(target).loss(predictions_MK, values_M)[:5],
        built(target).loss(predictions_MK[:5], values_M[:5]),
    )
    require(same(together, alone), "a patch's loss depends on the other scored patches")


def check_right_predictions_cost_least(target: Target) -> None:
    """The loss of exact values is 0; the right code has the lowest loss; other targets are not checked."""
    values_M = _values(target).detach().flatten(0, 1)
    num_outputs = int(target.num_outputs(4, 3))
    if values_M.dim() == 1:
        right, wrong = (built(target).loss(_certain(values_M + shift, num_outputs), values_M) for shift in (0, 1))
        require(num_outputs == 1 or bool((right < wrong).all()), "a wrong code costs no more than the right one")
    elif values_M.shape[1] == num_outputs:
        right = built(target).loss(values_M, values_M).abs().max()
        require(right <= TOLERANCE, f"exact predictions cost {right:.3g}, not 0")


def check_codes_are_below_num_outputs(target: Target) -> None:
    """Codes lie in [0, K)."""
    values = _values(target)
    if values.is_floating_point():
        return
    low, high, num_outputs = int(values.min()), int(values.max()), int(target.num_outputs(4, 3))
    require(low >= 0 and high < num_outputs, f"codes lie between {low} and {high}, but num_outputs is {num_outputs}")


def check_following_the_gradient_lowers_the_loss(target: Target) -> None:
    """Predictions get a finite gradient, and a small step against it lowers the loss."""
    predictions_MK, values_M = _predicted(target)
    leaf = predictions_MK.clone().requires_grad_()
    before = built(target).loss(leaf, values_M).sum()
    with explained("predictions get no gradient: loss must be differentiable in them"):
        (gradient,) = torch.autograd.grad(before, leaf)
    lower = built(target).loss(leaf - 1e-3 * gradient / gradient.abs().max(), values_M).sum()
    require(
        lower < before, f"a step against the gradient leads from {before:.6g} to {lower:.6g}: the gradient is wrong"
    )


def check_the_gradient_is_finite_at_exact_predictions(target: Target) -> None:
    """No infinity or NaN where a prediction equals its values (as the derivative of sqrt at 0)."""
    values_M = _values(target).detach().flatten(0, 1)
    if values_M.dim() == 1 or values_M.shape[1] != int(target.num_outputs(4, 3)):
        return
    leaf = values_M.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(built(target).loss(leaf, values_M).sum(), leaf, allow_unused=True)
    require(gradient is None or bool(gradient.isfinite().all()), "the gradient at exact predictions is not finite")


def check_patches_of_one_colour_have_finite_losses(target: Target) -> None:
    """Flat patches, such as white background, have finite values and losses."""
    batch = _batch(target)
    batch.images.patches_BNF.fill_(0.5)
    for view in batch.views.values():
        view.fill_(0.5)
    predictions_MK, _ = _predicted(target)
    values_M = built(target).forward(batch).flatten(0, 1)
    finite = values_M.isfinite().all() and built(target).loss(predictions_MK, values_M).isfinite().all()
    require(
        bool(finite),
        "values or losses of a flat patch are not finite: its variance or norm is 0; add a small number first",
    )


def check_any_patch_size_and_number_of_channels_will_do(target: Target) -> None:
    """Values, ``num_outputs`` and loss fit each other for other patches and for grey images.

    A target whose file is made for certain patches or channels may refuse others by an AimcoreError in ``build``.
    """
    for patch_size, num_channels in ((7, 3), (4, 1)):
        where = f"patches of {patch_size} px with {num_channels} channels"
        if _refuses(target, patch_size, num_channels):
            continue
        with explained(f"fails for {where}: use what num_outputs is given, and the shape of the patches"):
            predictions_MK, values_M = _predicted(target, patch_size, num_channels)
            built(target, patch_size, num_channels).loss(predictions_MK, values_M)


def check_pictures_are_patches_or_refused(target: Target) -> None:
    """``drawn``, by default ``to_patches``, gives ``[B, N, F]`` pixels, or raises NotImplementedError."""
    batch = _batch(target)
    patches_BNF = batch.images.patches_BNF
    predictions_MK, _ = _predicted(target)
    predictions_BNK = predictions_MK.reshape(NUM_IMAGES, GRID.num_patches, -1)
    try:
        picture = built(target).drawn(predictions_BNK, batch.images.valid_BN, batch)
    except NotImplementedError:
        return
    require(
        picture.shape == patches_BNF.shape, f"to_patches and drawn must give [B, N, F] pixels, got {shape_of(picture)}"
    )


def check_a_dry_run_can_count_it(target: Target) -> None:
    """Values and losses have shapes without pixels (on the meta device), as ``--dry-run`` needs."""
    with explained("fails without pixels: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        with torch.device("meta"):
            module = built_target(target, 4, 3)
        values_M = module.forward(on_meta(_batch(target))).flatten(0, 1)
        module.loss(torch.empty(len(values_M), int(target.num_outputs(4, 3)), device="meta"), values_M)


def check_its_weights_come_back(target: Target) -> None:
    """Built anew, with what checkpoints hold, it gives the same values: none of its weights is lost."""
    batch = as_float32(_batch(target))
    kept, again = _drawn(target, 1), _drawn(target, 2)
    with explained("its weights cannot be loaded into a module built anew"):
        again.load_state_dict(kept.state_dict())
    require(
        same(kept.forward(batch), again.forward(batch)),
        "a module built anew, with what checkpoints hold of the first, gives other values: keep weights in parameters "
        "or buffers, and in_checkpoints True unless build reads them from a file",
    )


def check_its_values_are_always_the_same(target: Target) -> None:
    """The same images have the same values, in training too: nothing is drawn, and nothing moves."""
    batch, module = _batch(target), built(target)
    module.train()
    with seeded(1):
        first = module.forward(batch)
    with seeded(2):
        again = module.forward(batch)
    require(same(first, again), "two calls give other values for the same images: draw nothing and move no state")


def check_its_weights_follow_torchs_seed(target: Target) -> None:
    """``build`` draws weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(lambda: built_target(target, 4, 3))


CHECKS: tuple[Check, ...] = (
    check_num_outputs_is_a_positive_whole_number,
    check_values_have_one_row_per_patch,
    check_values_are_in_raster_order,
    check_values_depend_on_what_it_sees,
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
    check_its_weights_come_back,
    check_its_values_are_always_the_same,
    check_its_weights_follow_torchs_seed,
)


def built(target: Target, patch_size: int = 4, num_channels: int = 3) -> TargetModule:
    """The module of ``target``, always with the same weights, in float64."""
    with seeded():
        return built_target(target, patch_size, num_channels).double()


def _refuses(target: Target, patch_size: int, num_channels: int) -> bool:
    try:
        built(target, patch_size, num_channels)
    except BrokenContract:
        return False
    except AimcoreError:
        return True
    return False


def _drawn(target: Target, seed: int) -> TargetModule:
    with seeded(seed):
        return built_target(target, 4, 3)


def _values(target: Target, patch_size: int = 4, num_channels: int = 3) -> Tensor:
    return built(target, patch_size, num_channels).forward(_batch(target, patch_size, num_channels))


def _batch(target: Target, patch_size: int = 4, num_channels: int = 3) -> Batch:
    return batch_of(random_images(patch_size=patch_size, num_channels=num_channels), target.views, target.extras)


def _predicted(target: Target, patch_size: int = 4, num_channels: int = 3) -> tuple[Tensor, Tensor]:
    """Random predictions ``[M, K]``, and the values ``[M]`` or ``[M, F]`` of all patches."""
    values_M = _values(target, patch_size, num_channels).detach().flatten(0, 1)
    with seeded(1):  # not the images' seed: predictions would be exact
        shape = NUM_IMAGES * GRID.num_patches, int(target.num_outputs(patch_size, num_channels))
        predictions_MK = torch.randn(shape, dtype=torch.float64)
    return predictions_MK, values_M


def _rows(values: Tensor) -> Tensor:
    """Values and codes alike as ``[B, N, F]``."""
    return values if values.dim() == 3 else values.unsqueeze(-1)


def _certain(codes_M: Tensor, num_outputs: int) -> Tensor:
    """Logits with nearly all probability on ``codes_M``."""
    return torch.nn.functional.one_hot(codes_M.long() % num_outputs, num_outputs).double() * 20
