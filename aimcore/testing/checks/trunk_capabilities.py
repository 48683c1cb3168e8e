"""Checks of the capabilities of trunks.

Shape suffixes: B batch, N patches in raster order, S steps of the reading order, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from aimcore.contracts.features import CAUSAL, Attention, Capability, Reading
from aimcore.contracts.images import Images, PatchGrid, reorder
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.modeling.attention import mask_of
from aimcore.testing.checks import Check
from aimcore.testing.checks.trunk_readings import build, forward, grid_of, images_for, some_order
from aimcore.testing.fixtures import NUM_IMAGES, changed_patch
from aimcore.testing.requirements import differs, explained, require, same, shape_of


def check_it_reads_in_the_requested_order(trunk: Trunk) -> None:
    """With ``order``, tokens and positions are in reading order."""
    module = build(trunk)
    images = images_for(trunk, module)
    order_BN = some_order(grid_of(trunk).num_patches)
    raster, ordered = forward(module, images), forward(module, images, Reading(order_BN=order_BN))
    require(
        torch.equal(ordered.positions_BN2, reorder(raster.positions_BN2, order_BN)),
        "positions are not in the requested order: return reorder(images.positions_BN2, reading.order_BN)",
    )
    require(
        not same(ordered.tokens_BND, raster.tokens_BND),
        "tokens are in raster order whatever reading.order_BN says: reorder them after adding positions",
    )


def check_causal_attention_sees_nothing_later(trunk: Trunk) -> None:
    """With ``causal``, a step's token depends on no patch read after it."""
    _sees_only_what_is_allowed(trunk, CAUSAL)


def check_it_looks_ahead_without_causal_attention(trunk: Trunk) -> None:
    """With ``causal``, the default reading is bidirectional: some token depends on a patch read after it."""
    module = build(trunk)
    seen_BSS = _seen(module, images_for(trunk, module), Reading())
    require(
        bool(seen_BSS.triu(1).any()),
        "no token depends on a later patch though the reading is not causal: look at reading.attention.causal",
    )


def check_prefix_attention_sees_the_prefix_and_nothing_later(trunk: Trunk) -> None:
    """With ``prefix``, every step sees the whole prefix, and steps after it see nothing later."""
    num_patches = grid_of(trunk).num_patches
    length = max(2, num_patches // 2)
    seen_BSS = _sees_only_what_is_allowed(
        trunk, Attention(causal=True, prefix_length_B=torch.full((NUM_IMAGES,), length))
    )
    whole_prefix = seen_BSS[:, 0, 1:length].any()
    require(bool(whole_prefix), f"the first step sees nothing of the {length} patches of its prefix but itself")


def check_patches_that_are_not_read_change_nothing(trunk: Trunk) -> None:
    """With ``subset``, a part of the patches is read: a token for each, at its position, and nothing of the others."""
    module, num_patches = build(trunk), grid_of(trunk).num_patches
    images, number = images_for(trunk, module), max(1, num_patches // 2)
    read_BK = some_order(num_patches)[:, :number]
    with explained(f"fails to read {number} of {num_patches} patches, though 'subset' is among what it can"):
        part = forward(module, images, Reading(order_BN=read_BK))
    expected = (NUM_IMAGES, number, module.width)
    require(part.tokens_BND.shape == expected, f"tokens must be {list(expected)}, got {shape_of(part.tokens_BND)}")
    require(
        torch.equal(part.positions_BN2, reorder(images.positions_BN2, read_BK)),
        "positions are not those of the patches that are read: return reorder(images.positions_BN2, reading.order_BN)",
    )
    changed_BNF = changed_patch(images.patches_BNF, slice(None))
    is_read_BN = torch.zeros(NUM_IMAGES, num_patches, dtype=torch.bool).scatter(1, read_BK, True)
    other = attrs.evolve(images, patches_BNF=torch.where(is_read_BN[..., None], images.patches_BNF, changed_BNF))
    same_part = forward(module, other, Reading(order_BN=read_BK))
    require(
        same(part.tokens_BND, same_part.tokens_BND),
        "tokens depend on patches that are not read: leave them out before the first block, not at the end",
    )
    # A filled row: its last step repeats the first one and is not valid, so no query may see it.
    filled_BK = torch.cat([read_BK, read_BK[:, :1]], dim=1)
    valid_BK = torch.ones_like(filled_BK, dtype=torch.bool)
    valid_BK[:, -1] = False
    filled = forward(module, images, Reading(attention=Attention(valid_BN=valid_BK), order_BN=filled_BK))
    require(
        same(filled.tokens_BND[:, :number], part.tokens_BND),
        "tokens depend on steps that fill a row up (reading.attention.valid_BN is False there)",
    )


def check_a_masked_patch_cannot_be_seen(trunk: Trunk) -> None:
    """With ``mask``, the content of masked patches changes nothing, and masking them does."""
    module = build(trunk)
    images = images_for(trunk, module)
    masked_BN = torch.zeros(NUM_IMAGES, grid_of(trunk).num_patches, dtype=torch.bool)
    masked_BN[:, -1] = True
    reading = Reading(masked_BN=masked_BN)
    other = attrs.evolve(images, patches_BNF=changed_patch(images.patches_BNF, masked_BN.shape[1] - 1))
    masked = forward(module, images, reading).tokens_BND
    require(same(masked, forward(module, other, reading).tokens_BND), "the content of a masked patch can be seen")
    require(not same(masked, forward(module, images).tokens_BND), "reading.masked_BN masks nothing")


def check_padding_changes_nothing(trunk: Trunk) -> None:
    """With ``native``, an image has the same tokens alone and in a batch with a larger one; padding is marked."""
    module = build(trunk)
    small, large = PatchGrid(2, 3), PatchGrid(3, 4)
    few, many = (images_for(trunk, module, grid, number=1) for grid in (small, large))
    padded_BNF = torch.zeros(2, large.num_patches, few.patches_BNF.shape[2], dtype=torch.float64)
    padded_BNF[0, : small.num_patches] = few.patches_BNF[0]
    padded_BNF[1] = many.patches_BNF[0]
    mixed_images = Images(patches_BNF=padded_BNF, grids=(small, large), patch_size=few.patch_size)
    with explained("cannot read images of two grids, though 'native' is among what it can"):
        mixed = forward(module, mixed_images)
    marked = mixed.valid_BN.sum(1).tolist() == [small.num_patches, large.num_patches]
    require(marked, "valid_BN must be False on padding and True elsewhere")
    alone = forward(module, few)
    one_grid = attrs.evolve(mixed_images, patches_BNF=padded_BNF[:1], grids=(small,))
    with explained("cannot read padded images of one grid, though 'native' is among what it can"):
        found = {"a larger one": mixed, "none, but padded": forward(module, one_grid)}
    for beside, features in found.items():
        require(
            same(features.tokens_BND[:1, : small.num_patches], alone.tokens_BND),
            f"an image's tokens change with the padding behind it (beside {beside}): hide padded keys "
            "(Attention.valid_BN, where Images.is_padded)",
        )
    _reads_padding_that_is_image(module, attrs.evolve(one_grid, padding_is_image=True), alone.tokens_BND)


def _reads_padding_that_is_image(module: TrunkModule, images: Images, alone_1ND: Tensor) -> None:
    features = forward(module, images)
    require(bool(features.valid_BN.all()), "valid_BN must be True where padding is part of the image")
    seen = differs(features.tokens_BND[:, : alone_1ND.shape[1]], alone_1ND).any()
    require(bool(seen), "patches that are part of an image are hidden (Images.padding_is_image)")


def check_patch_embeddings_are_those_of_single_patches(trunk: Trunk) -> None:
    """With ``embeddings``, ``embed_patches`` gives each patch by itself, in raster order."""
    module = build(trunk)
    images = images_for(trunk, module)
    num_patches = grid_of(trunk).num_patches
    with explained("embed_patches fails, though 'embeddings' is among what it can"):
        before_BND = module.embed_patches(images)
    shape = (NUM_IMAGES, num_patches, module.width)
    require(before_BND.shape == shape, f"embed_patches must give {list(shape)}, got {shape_of(before_BND)}")
    for patch in range(num_patches):
        other = attrs.evolve(images, patches_BNF=changed_patch(images.patches_BNF, patch))
        changed_BN = differs(before_BND, module.embed_patches(other)).any(-1)
        require(changed_BN[:, patch].all(), f"the embedding of patch {patch} does not depend on it: keep raster order")
        changed_BN[:, patch] = False
        require(
            not changed_BN.any(),
            f"the embeddings of other patches change with patch {patch}: give them as they are before any patch sees "
            "another",
        )


def check_patch_embeddings_have_no_positions(trunk: Trunk) -> None:
    """With ``embeddings``, the same patch has the same embedding wherever it is."""
    module = build(trunk)
    images = images_for(trunk, module)
    alike_BNF = images.patches_BNF[:, :1].expand_as(images.patches_BNF).contiguous()
    embedded_BND = module.embed_patches(attrs.evolve(images, patches_BNF=alike_BNF))
    require(
        same(embedded_BND, embedded_BND[:, :1].expand_as(embedded_BND)),
        "embed_patches gives equal patches different embeddings: add positions afterwards",
    )


BY_CAPABILITY: Mapping[Capability, tuple[Check, ...]] = {
    "order": (check_it_reads_in_the_requested_order,),
    "subset": (check_patches_that_are_not_read_change_nothing,),
    "causal": (check_causal_attention_sees_nothing_later, check_it_looks_ahead_without_causal_attention),
    "prefix": (check_prefix_attention_sees_the_prefix_and_nothing_later,),
    "mask": (check_a_masked_patch_cannot_be_seen,),
    "native": (check_padding_changes_nothing,),
    "embeddings": (check_patch_embeddings_are_those_of_single_patches, check_patch_embeddings_have_no_positions),
}


def _sees_only_what_is_allowed(trunk: Trunk, attention: Attention) -> Tensor:
    """``[B, S, S]`` bool: which step's token depends on the patch read at which step; fails where it must not."""
    module = build(trunk)
    images, num_patches = images_for(trunk, module), grid_of(trunk).num_patches
    order_BN = some_order(num_patches) if "order" in trunk.capabilities else None
    seen_BSS = _seen(module, images, Reading(attention=attention, order_BN=order_BN))
    allowed = mask_of(attention, num_patches, torch.device("cpu")).allowed
    assert allowed is not None
    leaks = (seen_BSS & ~allowed[:, 0]).nonzero().tolist()
    where = f"the token of step {leaks[0][1]} depends on the patch read at step {leaks[0][2]}" if leaks else ""
    require(
        not leaks, f"{where}: attend under aimcore.modeling.attention.mask_of(reading.attention, ...), in reading order"
    )
    return seen_BSS


def _seen(module: TrunkModule, images: Images, reading: Reading) -> Tensor:
    """``[B, S, S]``: whether step q's token changes with the patch read at step k."""
    before = forward(module, images, reading).tokens_BND
    columns = []
    for patch in range(images.grid.num_patches):
        other = attrs.evolve(images, patches_BNF=changed_patch(images.patches_BNF, patch))
        columns.append(differs(before, forward(module, other, reading).tokens_BND).any(-1))
    by_patch_BSN = torch.stack(columns, dim=-1)
    if reading.order_BN is None:
        return by_patch_BSN
    return by_patch_BSN.gather(2, reading.order_BN[:, None].expand_as(by_patch_BSN))
