"""Pixels as features."""

from __future__ import annotations

import pytest
import torch

from aimcore import Batch, Images, InvalidValue, PatchGrid
from aimcore.contracts.images import images_of
from aimcore.evaluation import FeatureKind, raw_pixel_features
from aimcore.evaluation.raw_pixels import positioned_patches
from aimcore.modeling.positions import sincos_positions

TOKENS = FeatureKind("tokens", ())


def _batch(images: Images) -> Batch:
    count = len(images.grids)
    return Batch(images=images, sample_numbers_B=torch.arange(count), labels_B=torch.arange(count))


def test_pooled_they_are_the_flattened_image_channel_by_channel() -> None:
    images = images_of(torch.arange(48.0).reshape(1, 3, 4, 4), patch_size=2)
    found = raw_pixel_features([_batch(images)], ["pooled"], num_classes=2)
    assert torch.equal(found[FeatureKind("pooled", ())].features, torch.arange(48.0)[None])


def test_as_tokens_they_are_the_patches_plus_positions_of_their_width() -> None:
    images = images_of(torch.arange(48.0).reshape(1, 3, 4, 4), patch_size=2)
    found = raw_pixel_features([_batch(images)], ["tokens", "pooled", "tokens"], num_classes=2)
    places = torch.tensor([[[0, 0], [0, 1], [1, 0], [1, 1]]])
    assert torch.equal(found[TOKENS].features, images.patches_BNF + sincos_positions(places, 12))


def test_equal_patches_differ_by_their_places() -> None:
    tokens_BNF = positioned_patches(images_of(torch.zeros(1, 3, 4, 4), patch_size=2))
    assert len(torch.unique(tokens_BNF[0], dim=0)) == 4


@pytest.mark.parametrize(("channels", "patch_size", "width"), [(1, 1, 4), (1, 3, 12), (3, 2, 12), (3, 14, 588)])
def test_patches_are_widened_by_zeros_to_a_multiple_of_four(channels: int, patch_size: int, width: int) -> None:
    images = images_of(torch.ones(1, channels, 2 * patch_size, patch_size), patch_size)
    tokens_BNF = positioned_patches(images)
    positions = sincos_positions(images.positions_BN2, width)
    added = (tokens_BNF - positions)[0, 0]
    values = channels * patch_size**2
    torch.testing.assert_close(added, torch.cat([torch.ones(values), torch.zeros(width - values)]))


def test_images_of_different_sizes_are_refused() -> None:
    images = Images(patches_BNF=torch.ones(2, 4, 12), grids=(PatchGrid(2, 2), PatchGrid(1, 4)), patch_size=2)
    with pytest.raises(InvalidValue, match="only where all images have one size"):
        raw_pixel_features([_batch(images)], ["pooled"], num_classes=2)
