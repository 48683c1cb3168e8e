"""Checks of trunks: each reads a uniform batch in raster order, and has the capabilities that it lists.

Shape suffixes: B batch, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch

from aimcore.contracts.assembly import built_trunk
from aimcore.contracts.features import Reading
from aimcore.contracts.trunks import Trunk
from aimcore.testing.checks import Check, modules
from aimcore.testing.checks.trunk_capabilities import BY_CAPABILITY
from aimcore.testing.checks.trunk_readings import build, forward, grid_of, images_for
from aimcore.testing.fixtures import NUM_IMAGES, batch_of, changed_patch, on_meta, random_images, some_grids
from aimcore.testing.requirements import differs, explained, require, require_names, same, shape_of
from aimcore.testing.short_training import trains_alike_at_stages_0_and_3
from aimcore.testing.small_parts import ALL_CAPABILITIES, StandInHeadModule, StandInObjectiveModule

_SHARES = 1e-4
"""How far a row of attention may be from adding up to 1, in float32."""


def check_its_capabilities_are_known(trunk: Trunk) -> None:
    """``capabilities`` is a frozenset of names: those of the core, or a plugin's own with distinct names."""
    require_names("capabilities", trunk.capabilities, ALL_CAPABILITIES, "the capabilities")


def check_features_have_the_declared_shapes(trunk: Trunk) -> None:
    """Tokens ``[B, N, width]``, positions ``[B, N, 2]``, valid ``[B, N]`` bool; the patch size is the component's."""
    module = build(trunk)
    require(module.patch_size == trunk.patch_size, f"the module's patch_size is {module.patch_size}, the component's "
                                                   f"{trunk.patch_size}")  # fmt: skip
    shape = NUM_IMAGES, trunk.output_grid(grid_of(trunk)).num_patches
    tokens_BND, positions_BN2, valid_BN, layers = forward(module, images_for(trunk, module))[:4]
    require(
        tokens_BND.shape == (*shape, module.width),
        f"tokens must be {[*shape, module.width]} (width is {module.width}), got {shape_of(tokens_BND)}",
    )
    require(
        positions_BN2.shape == (*shape, 2) and positions_BN2.dtype == torch.int64,
        f"positions must be {[*shape, 2]} int64, got {shape_of(positions_BN2)}",
    )
    require(
        valid_BN.shape == shape and valid_BN.dtype == torch.bool and bool(valid_BN.all()),
        f"valid must be {list(shape)} bool, all True where nothing is padded, got {shape_of(valid_BN)}",
    )
    require(type(layers) is tuple and not layers, f"layers must be an empty tuple if none are asked for, got {layers}")


def check_positions_are_row_and_column_of_each_token(trunk: Trunk) -> None:
    """In raster order, positions are those of the images."""
    module = build(trunk)
    images = images_for(trunk, module)
    found = forward(module, images).positions_BN2
    grid, own = grid_of(trunk), trunk.output_grid(grid_of(trunk))
    if own != grid:
        images = random_images(own)
    if found.shape != images.positions_BN2.shape:
        return  # that has its own check
    require(
        torch.equal(found, images.positions_BN2),
        f"positions begin {found[0, :4].tolist()}, but must be {images.positions_BN2[0, :4].tolist()}: return "
        "reorder(images.positions_BN2, reading.order_BN)",
    )


def check_tokens_depend_on_the_pixels(trunk: Trunk) -> None:
    """Changing a patch changes the tokens."""
    module = build(trunk)
    images = images_for(trunk, module)
    for patch in range(grid_of(trunk).num_patches):
        other = attrs.evolve(images, patches_BNF=changed_patch(images.patches_BNF, patch))
        moved = not same(forward(module, images).tokens_BND, forward(module, other).tokens_BND)
        require(moved, f"no token depends on the pixels of patch {patch}")


def check_extra_tokens_depend_on_the_pixels(trunk: Trunk) -> None:
    """``extra_BRD`` (``num_extra`` tokens) changes with the pixels: probes classify images by a class token."""
    if not trunk.num_extra:
        return
    module = build(trunk)
    images = images_for(trunk, module)
    changed = attrs.evolve(images, patches_BNF=changed_patch(images.patches_BNF, slice(None)))
    before, after = forward(module, images).extra_BRD, forward(module, changed).extra_BRD
    assert before is not None
    assert after is not None
    moved_R = differs(before, after).any(-1).any(0)
    require(bool(moved_R.all()), f"tokens {(~moved_R).nonzero().flatten().tolist()} of extra_BRD do not depend on the "
                                 "pixels: give them as they are after the final norm")  # fmt: skip


def check_layers_are_the_requested_ones(trunk: Trunk) -> None:
    """``reading.layers`` are raw block outputs ``[B, N, D]`` in the requested order; tokens stay the same."""
    module = build(trunk)
    images, last = images_for(trunk, module), module.depth - 1
    plain = forward(module, images)
    with explained(f"fails when asked for the outputs of blocks {last} and 0 (depth is {module.depth})"):
        asked = forward(module, images, Reading(layers=(last, 0)))
        swapped = forward(module, images, Reading(layers=(0, last)))
    shapes = [shape_of(layer) for layer in asked.layers]
    require(
        [layer.shape for layer in asked.layers] == [plain.tokens_BND.shape] * 2,
        f"two layers of {shape_of(plain.tokens_BND)} were asked for, got {shapes}",
    )
    in_order = all(same(one, other) for one, other in zip(asked.layers, swapped.layers[::-1], strict=True))
    require(in_order, "layers come in another order than reading.layers asks for them")
    require(same(asked.tokens_BND, plain.tokens_BND), "asking for layers changes the tokens")


def check_attention_maps_are_shares_or_refused(trunk: Trunk) -> None:
    """``attention_maps`` are ``[B, H, N, N]``, each row adding up to 1, or NotImplementedError: pictures do without."""
    module = build(trunk)
    images, num_patches = images_for(trunk, module), trunk.output_grid(grid_of(trunk)).num_patches
    try:
        maps_BHNN = module.attention_maps(images, Reading()).detach()
    except NotImplementedError:
        return
    good = maps_BHNN.dim() == 4 and (*maps_BHNN.shape[:1], *maps_BHNN.shape[2:]) == (NUM_IMAGES, *[num_patches] * 2)
    require(good, f"maps must be [{NUM_IMAGES}, H, {num_patches}, {num_patches}], got {shape_of(maps_BHNN)}")
    off = float((maps_BHNN.sum(-1) - 1).abs().max())
    require(off < _SHARES and float(maps_BHNN.min()) >= 0, f"rows must add up to 1 and not be negative; {off:.3g} off")


def check_images_do_not_mix(trunk: Trunk) -> None:
    """An image's tokens do not depend on the other images of its batch (in evaluation mode)."""
    module = build(trunk)
    images = images_for(trunk, module)
    patches_BNF = images.patches_BNF.clone()
    patches_BNF[1:] = 2 * patches_BNF[1:].flip(-1) + 1
    before, after = forward(module, images), forward(module, attrs.evolve(images, patches_BNF=patches_BNF))
    require(same(before.tokens_BND[0], after.tokens_BND[0]), "an image's tokens depend on the rest of its batch")


def check_every_grid_is_read_or_refused(trunk: Trunk) -> None:
    """If ``problems_with(grid)`` reports nothing, the trunk reads images of that grid."""
    module = build(trunk)
    for grid in some_grids():
        if not tuple(trunk.problems_with(grid)):
            forward(module, images_for(trunk, module, grid))


def check_weights_follow_torchs_seed(trunk: Trunk) -> None:
    """``build`` draws fresh weights from torch's global generator alone, and never seeds it."""
    modules.weights_follow_torchs_seed(trunk.build)


def check_what_it_accepts_can_be_built(trunk: Trunk) -> None:
    """Numbers that ``problems()`` does not refuse do not fail later, when the module is built."""
    modules.what_is_accepted_can_be_built(trunk, lambda changed: changed.build())


def check_nothing_is_random_in_evaluation(trunk: Trunk) -> None:
    """In evaluation mode the same images give the same tokens."""
    module = build(trunk)
    images = images_for(trunk, module)
    forward(module, images)
    modules.nothing_is_random_in_evaluation(lambda: module(images, Reading()).tokens_BND)


def check_every_weight_is_trained(trunk: Trunk) -> None:
    """Every trainable weight gets a gradient. A trunk without any, such as random features, is a frozen baseline."""
    module = build(trunk).train()
    if not any(weight.requires_grad for weight in module.parameters()):
        return
    images = images_for(trunk, module)
    tokens_BND = forward(module, images, _plainest(trunk)).tokens_BND
    modules.every_weight_is_trained(module, tokens_BND.square().sum())


def check_its_parts_return_tensors(trunk: Trunk) -> None:
    """Every part returns tensors, NamedTuples or dicts of them: ZeRO stage 3 sees no others."""
    module = build(trunk)
    with modules.collect_opaque_outputs(module) as unseen:
        forward(module, images_for(trunk, module))
    modules.require_visible_outputs(unseen)


def check_images_are_left_as_they_were(trunk: Trunk) -> None:
    """Nothing is changed in place: targets read the same pixels afterwards."""
    module = build(trunk)
    images = images_for(trunk, module)
    before = images.patches_BNF.clone()
    forward(module, images)
    require(torch.equal(images.patches_BNF, before), "forward changes the images in place: work on a copy")


def check_a_dry_run_can_count_it(trunk: Trunk) -> None:
    """It is built and run without numbers (on the meta device), as ``--dry-run`` needs."""
    built = build(trunk)
    images = images_for(trunk, built)
    forward(built, images)
    images = on_meta(batch_of(images)).images
    with explained("fails without numbers: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        with torch.device("meta"):
            module = built_trunk(trunk)
        module(images, Reading())


def check_it_trains_alike_at_zero_stages_0_and_3(trunk: Trunk) -> None:
    """Two steps at ZeRO stage 3 give the losses of stage 0: its weights are used where stage 3 gathers them."""

    def assembled() -> StandInObjectiveModule:
        module = built_trunk(trunk)
        return StandInObjectiveModule(module, StandInHeadModule(module.width, 1), _plainest(trunk))

    module = build(trunk)
    images = images_for(trunk, module)
    forward(module, images)
    trains_alike_at_stages_0_and_3(assembled, batch_of(images))


ALWAYS: tuple[Check, ...] = (
    check_its_capabilities_are_known,
    check_features_have_the_declared_shapes,
    check_positions_are_row_and_column_of_each_token,
    check_tokens_depend_on_the_pixels,
    check_extra_tokens_depend_on_the_pixels,
    check_layers_are_the_requested_ones,
    check_attention_maps_are_shares_or_refused,
    check_images_do_not_mix,
    check_every_grid_is_read_or_refused,
    check_weights_follow_torchs_seed,
    check_what_it_accepts_can_be_built,
    check_nothing_is_random_in_evaluation,
    check_every_weight_is_trained,
    check_its_parts_return_tensors,
    check_images_are_left_as_they_were,
    check_a_dry_run_can_count_it,
    check_it_trains_alike_at_zero_stages_0_and_3,
)
CHECKS: tuple[Check, ...] = (*ALWAYS, *(check for checks in BY_CAPABILITY.values() for check in checks))


def checks_of(trunk: Trunk) -> Iterator[Check]:
    """Yield the checks of every trunk, and those of the capabilities of ``trunk``."""
    yield from ALWAYS
    yield from (check for ability, checks in BY_CAPABILITY.items() if ability in trunk.capabilities for check in checks)


def _plainest(trunk: Trunk) -> Reading:
    """The default reading, with a masked patch if the trunk can mask: the mask token must train too."""
    if "mask" not in trunk.capabilities:
        return Reading()
    masked_BN = torch.zeros(NUM_IMAGES, grid_of(trunk).num_patches, dtype=torch.bool)
    masked_BN[:, 0] = True
    return Reading(masked_BN=masked_BN)
