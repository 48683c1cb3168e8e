"""Next-patch prediction by hand: who is scored, against what, from where."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aimcore import Batch, Images, Ordering, PatchGrid, Reading, component
from aimcore.contracts.images import images_of, reorder
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_targets import NormalizedPixels, Pixels
from aimcore_trunks import ViT


@component("backwards")
class Backwards(Ordering):
    """Raster, backwards."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches).flip(0)


def _module(objective: NextPatch) -> NextPatchModule:
    torch.manual_seed(0)
    return objective.build(ViT(width=16, depth=1, num_heads=2, patch_size=2).build())


def _batch(num_images: int = 4, first: int = 0) -> Batch:
    pixels = torch.rand(num_images, 3, 6, 8, generator=torch.Generator().manual_seed(first))
    return Batch(images=images_of(pixels, 2), sample_numbers_B=torch.arange(first, first + num_images), seed=5)


def test_the_loss_is_the_error_of_the_output_before_each_patch_in_reading_order() -> None:
    objective = NextPatch(ordering=Backwards(), target=Pixels(), head=LinearHead(), prefix=None)
    module, batch = _module(objective), _batch()
    order_BN = torch.arange(12).flip(0).expand(4, -1)
    losses = module(batch)["next_patch"]
    from aimcore import CAUSAL

    tokens_BND = module.trunk(batch.images, Reading(attention=CAUSAL, order_BN=order_BN)).tokens_BND
    predictions = tokens_BND[:, :-1] @ next(module.head.parameters()).T
    patches = reorder(batch.images.patches_BNF, order_BN)[:, 1:]
    expected = (predictions - patches).square().mean(-1)
    torch.testing.assert_close(losses.sum, expected.sum())
    assert losses.num_targets == 4 * 11 == module.counts(batch)["next_patch"]


def test_only_patches_behind_the_prefix_are_scored() -> None:
    module, batch = _module(NextPatch(head=LinearHead(), prefix=5)).eval(), _batch()
    loss = module(batch)["next_patch"]
    assert loss.per_position_BN is not None
    assert loss.per_position_BN.isnan().tolist() == [[True] * 5 + [False] * 7] * 4
    torch.testing.assert_close(loss.per_position_BN.nansum(), loss.sum)
    assert loss.num_targets == 4 * 7 == module.counts(batch)["next_patch"]


def test_a_uniform_prefix_is_drawn_per_sample_whatever_the_batch() -> None:
    module = _module(NextPatch(head=LinearHead()))
    whole = module.counts(_batch(8))["next_patch"]
    parts = [module.counts(_batch(2, first))["next_patch"] for first in (0, 2, 4, 6)]
    assert sum(parts) == whole
    assert len(set(parts)) > 1


def test_a_uniform_prefix_leaves_between_one_and_all_but_one_patch() -> None:
    module = _module(NextPatch(head=LinearHead()))
    seen = {module.counts(_batch(1, first))["next_patch"] for first in range(300)}
    assert seen == set(range(1, 12))


def test_validation_reads_with_a_prefix_of_one_patch_or_the_fixed_one() -> None:
    assert NextPatch().validation_prefix == 1
    assert NextPatch(prefix=3).validation_prefix == 3
    assert NextPatch(prefix=None).validation_prefix is None
    assert _module(NextPatch(head=LinearHead())).eval().counts(_batch()) == {"next_patch": 44}


def test_images_of_different_grids_are_scored_each_on_its_own_patches() -> None:
    objective = NextPatch(ordering=Backwards(), target=NormalizedPixels(), head=LinearHead(), prefix=None)
    module = _module(objective)
    large, small = _batch(1).images, images_of(torch.rand(1, 3, 4, 4), 2)
    padded = torch.cat([small.patches_BNF, torch.full((1, 8, 12), math.pi)], dim=1)
    mixed = Images(torch.cat([large.patches_BNF, padded]), (*large.grids, *small.grids), 2)
    together = module(Batch(images=mixed, sample_numbers_B=torch.arange(2)))["next_patch"]
    alone = [module(Batch(images=i, sample_numbers_B=torch.arange(1)))["next_patch"] for i in (large, small)]
    torch.testing.assert_close(together.sum, alone[0].sum + alone[1].sum)
    assert together.num_targets == 11 + 3


def test_an_image_with_nothing_to_predict_is_refused() -> None:
    assert list(NextPatch(prefix=4).problems_with(PatchGrid(2, 2))) == [
        "nothing is left to predict: 4 patches, of which 4 are given"
    ]
    assert list(NextPatch().problems_with(PatchGrid(1, 1))) != []
    assert list(NextPatch().problems_with(PatchGrid(1, 2))) == []


@pytest.mark.parametrize("prefix", [0, -3])
def test_a_prefix_without_patches_is_refused(prefix: int) -> None:
    with pytest.raises(ValueError, match=f"prefix: must be at least 1, got {prefix}"):
        NextPatch(prefix=prefix)
