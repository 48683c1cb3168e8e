"""Perceptual hashes: what changes them, and groups of near duplicates against all pairs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aimcore.data.perceptual_hash import distance, near_duplicates, nearest_of, perceptual_hash, perceptual_hashes
from aimcore.io.image_files import decode


def _scene(seed: int, side: int = 96) -> Tensor:
    """A smooth random image with structure at low frequencies, as photographs have."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]
    return (large * 255).to(torch.uint8)


def _as_jpeg(image_CHW: Tensor, side: int, quality: int) -> Tensor:
    picture = Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return decode(content.getvalue(), "it")


def test_a_smaller_copy_of_low_quality_has_almost_the_same_hash_and_another_image_has_not() -> None:
    first, copy, other = perceptual_hashes([_scene(0), _as_jpeg(_scene(0), 64, 40), _scene(1)])
    assert distance(first, copy) <= 3
    assert distance(first, other) > 16


def test_exposure_and_grey_copies_keep_the_hash() -> None:
    image = _scene(2)
    grey = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True).to(torch.uint8)
    brighter = (image.float() * 0.5 + 60).to(torch.uint8)
    assert all(distance(perceptual_hash(image), perceptual_hash(one)) <= 3 for one in (grey, brighter))


def test_the_bits_are_those_of_a_cosine() -> None:
    # Columns follow cos(pi (x + 1/2) k / 32) with k = 1: only the frequency (0, 1) differs from zero, which is the
    # second bit from the left of 64. A positive one is above the median (0), a negative one is not.
    wave = np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    image = torch.from_numpy(np.rint(128 + 100 * np.tile(wave, (3, 32, 1))).astype(np.uint8))
    top_bits = perceptual_hash(image) >> 56
    assert top_bits >> 6 == 0b01
    assert (perceptual_hash(image.flip(2)) >> 56) >> 6 == 0b00


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_without_contrast_has_hash_zero(value: int) -> None:
    assert perceptual_hash(torch.full((3, 20, 30), value, dtype=torch.uint8)) == 0


@pytest.mark.parametrize("most", [0, 1, 3, 10, 64])
@pytest.mark.parametrize("varied_bits", [64, 12])
def test_groups_are_the_connected_components_of_all_near_pairs(most: int, varied_bits: int) -> None:
    generator = np.random.default_rng(most)
    # Few varied bits put many hashes into each bucket: then all pairs are compared instead.
    hashes = generator.integers(0, 2**varied_bits - 1, 120, dtype=np.uint64)
    hashes = np.concatenate([hashes, hashes[:15] ^ (np.uint64(1) << generator.integers(0, 64, 15, dtype=np.uint64))])
    expected = _components_by_hand([int(one) for one in hashes], most)
    assert [group.tolist() for group in near_duplicates(hashes, most)] == expected


def _components_by_hand(hashes: list[int], most: int) -> list[list[int]]:
    remaining, groups = set(range(len(hashes))), []
    while remaining:
        group, frontier = set(), {min(remaining)}
        while frontier:
            group |= frontier
            frontier = {
                j for j in remaining - group if any((hashes[i] ^ hashes[j]).bit_count() <= most for i in frontier)
            }
        remaining -= group
        groups.append(sorted(group))
    return [group for group in groups if len(group) > 1]


def test_no_image_has_no_duplicates() -> None:
    assert near_duplicates(np.zeros(0, dtype=np.uint64)) == []


def test_the_nearest_reference_is_the_first_of_the_closest() -> None:
    nearest, found = nearest_of(
        np.array([0b111, 0b000], dtype=np.uint64), np.array([0b1, 0b11, 0b101], dtype=np.uint64)
    )
    assert (nearest.tolist(), found.tolist()) == ([1, 0], [1, 1])
    with pytest.raises(ValueError, match="no hash to compare with"):
        nearest_of(np.zeros(1, dtype=np.uint64), np.zeros(0, dtype=np.uint64))
