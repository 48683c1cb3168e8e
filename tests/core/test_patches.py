"""Patches, orders and positions by hand."""

from __future__ import annotations

import math

import pytest
import torch

from aimcore import Features, Images, PatchGrid
from aimcore.contracts.images import images_of, order_of, patchify, reorder, unpatchify
from aimcore.modeling.positions import sincos_positions


def test_a_patch_is_flattened_by_row_then_column_then_channel() -> None:
    pixels_BCHW = torch.arange(2 * 2 * 4).reshape(1, 2, 2, 4)
    # channel 0: 0 1 2 3 / 4 5 6 7; channel 1: 8 ... 15
    assert patchify(pixels_BCHW, 2).tolist() == [[[0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]]]


def test_unpatchify_is_the_inverse_of_patchify() -> None:
    pixels_BCHW = torch.rand(2, 3, 6, 9)
    torch.testing.assert_close(unpatchify(patchify(pixels_BCHW, 3), PatchGrid(2, 3), 3), pixels_BCHW)
    torch.testing.assert_close(images_of(pixels_BCHW, 3).pixels_BCHW, pixels_BCHW)


def test_an_image_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="image of 6 x 10 px does not divide into patches of 3 px"):
        patchify(torch.rand(1, 3, 6, 10), 3)


def test_positions_are_sines_then_cosines_of_the_column_then_of_the_row() -> None:
    position_D = sincos_positions(torch.tensor([1, 2]), 8)  # row 1, column 2; frequencies 1 and 1/100
    expected = [f(2 * w) for f in (math.sin, math.cos) for w in (1, 0.01)]
    expected += [f(1 * w) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(position_D, torch.tensor(expected))
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sincos_positions(torch.tensor([1, 2]), 6)


def _mixed() -> Images:
    return Images(patches_BNF=torch.zeros(2, 6, 3), grids=(PatchGrid(2, 3), PatchGrid(2, 2)), patch_size=1)


def test_images_of_different_grids_know_their_padding_and_places() -> None:
    images = _mixed()
    assert images.is_padded
    assert images.valid_BN.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert images.positions_BN2[1].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [-1, -1], [-1, -1]]
    with pytest.raises(ValueError, match="different grids"):
        _ = images.pixels_BCHW


def test_each_image_gets_the_order_of_its_own_grid_with_padding_last() -> None:
    order_BN = order_of(lambda grid: torch.arange(grid.num_patches).flip(0), _mixed())
    assert order_BN.tolist() == [[5, 4, 3, 2, 1, 0], [3, 2, 1, 0, 4, 5]]


def test_features_go_back_to_raster_order() -> None:
    images = _mixed()
    order_BN = order_of(lambda grid: torch.arange(grid.num_patches).flip(0), images)
    tokens_BND = torch.arange(12.0).reshape(2, 6, 1)
    features = Features(
        reorder(tokens_BND, order_BN),
        reorder(images.positions_BN2, order_BN),
        reorder(images.valid_BN, order_BN),
        (reorder(tokens_BND + 1, order_BN),),
    )
    back = features.raster()
    assert back.tokens_BND.equal(tokens_BND)
    assert back.layers[0].equal(tokens_BND + 1)
    assert back.positions_BN2.equal(images.positions_BN2)
    assert back.valid_BN.equal(images.valid_BN)
