"""Next-patch predictions as pictures: the same predictions that the loss is taken of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aimcore import Batch, Images, Target
from aimcore.patches import images_of
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_orderings import Reversed
from aimcore_targets import NormalizedPixels, Pixels
from aimcore_trunks import ViT


def module_of(objective: NextPatch) -> NextPatchModule:
    torch.manual_seed(0)
    return objective.build(ViT(width=16, depth=1, num_heads=2, patch_size=2).build()).eval()


def batch_of(num_images: int = 3) -> Batch:
    pixels = torch.rand(num_images, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    return Batch(images=images_of(pixels, 2), sample_numbers_B=torch.arange(num_images))


def normalized(patches: Tensor, like: Tensor) -> Tensor:
    return (patches - like.mean(-1, keepdim=True)) / (like.var(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()])
def test_the_error_of_the_pictures_is_the_loss(target: Target) -> None:
    module, batch = module_of(NextPatch(ordering=Reversed(), head=LinearHead(), target=target, prefix=3)), batch_of()
    shown, truth = module.predicted_patches(batch), batch.images.patches_BNF
    one, other = shown.patches_BNF, truth
    if isinstance(target, NormalizedPixels):
        one, other = normalized(one, truth), normalized(other, truth)
    error_BN = (one - other).square().mean(-1)
    torch.testing.assert_close(error_BN[shown.predicted_BN].sum(), module(batch)["next_patch"].sum)


def test_the_patches_read_first_are_given() -> None:
    shown = module_of(NextPatch(ordering=Reversed(), head=LinearHead(), prefix=3)).predicted_patches(batch_of())
    assert shown.predicted_BN.tolist() == [[True] * 9 + [False] * 3] * 3


def test_padding_is_never_predicted() -> None:
    large, small = batch_of(1).images, images_of(torch.rand(1, 3, 4, 4), 2)
    padded = torch.cat([small.patches_BNF, torch.zeros(1, 8, 12)], dim=1)
    mixed = Images(torch.cat([large.patches_BNF, padded]), (*large.grids, *small.grids), 2)
    batch = Batch(images=mixed, sample_numbers_B=torch.arange(2))
    shown = module_of(NextPatch(head=LinearHead(), prefix=None)).predicted_patches(batch)
    assert shown.predicted_BN.tolist() == [[False] + [True] * 11, [False] + [True] * 3 + [False] * 8]
