"""The ViT reads a part of the patches as if there were no others."""

from __future__ import annotations

import attrs
import pytest
import torch

from aimcore import CAUSAL, Attention, Images, PatchGrid, Reading
from aimcore.testing.fixtures import random_images
from aimcore.testing.requirements import seeded
from aimcore_trunks import ViT


@pytest.mark.parametrize("attention", [Attention(), CAUSAL, Attention(causal=True, prefix_length_B=torch.tensor([2]))])
@torch.no_grad()
def test_the_first_row_is_read_as_an_image_of_one_row(attention: Attention) -> None:
    with seeded():
        module = ViT(width=16, depth=2, num_heads=2, patch_size=4).build().double()
    images = random_images(PatchGrid(3, 4), number=1)
    row = attrs.evolve(images, patches_BNF=images.patches_BNF[:, :4], grids=(PatchGrid(1, 4),))
    order_BK = torch.tensor([[2, 0, 3, 1]])
    part = module(images, Reading(attention=attention, order_BN=order_BK, layers=(0,)))
    alone = module(row, Reading(attention=attention, order_BN=order_BK, layers=(0,)))
    torch.testing.assert_close(part.tokens_BND, alone.tokens_BND)
    torch.testing.assert_close(part.layers[0], alone.layers[0])
    assert part.positions_BN2.tolist() == [[[0, 2], [0, 0], [0, 3], [0, 1]]]
    assert part.raster().positions_BN2.tolist() == [[[0, 0], [0, 1], [0, 2], [0, 3]]]


@torch.no_grad()
def test_rows_of_different_lengths_are_filled_up_beside_padding_of_images() -> None:
    with seeded():
        module = ViT(width=16, depth=2, num_heads=2, patch_size=4).build().double()
    images = random_images(PatchGrid(2, 3), number=2)
    mixed = Images(images.patches_BNF, (PatchGrid(2, 3), PatchGrid(2, 2)), patch_size=4)
    valid_BK = torch.tensor([[True, True, True], [True, False, False]])
    part = module(mixed, Reading(attention=Attention(valid_BN=valid_BK), order_BN=torch.tensor([[5, 0, 1], [3, 0, 0]])))
    for row, order_K in enumerate(([5, 0, 1], [3])):
        one = attrs.evolve(mixed, patches_BNF=mixed.patches_BNF[row : row + 1], grids=mixed.grids[row : row + 1])
        alone = module(one, Reading(order_BN=torch.tensor([order_K])))
        torch.testing.assert_close(part.tokens_BND[row : row + 1, : len(order_K)], alone.tokens_BND)
