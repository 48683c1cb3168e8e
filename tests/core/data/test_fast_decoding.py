"""Pixels of the faster paths are those of the plain ones: decoding by torchvision, memory layout, deferred floats."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.images import patchify
from aimcore.data.transforms import Crop, normalize, normalize_patches, render_crop, to_patches, to_unit
from aimcore.io import image_files
from aimcore.io.image_files import decode

DRAWN = np.random.default_rng(0)


def jpeg(height: int, width: int, **options: Any) -> bytes:
    coarse = Image.fromarray(DRAWN.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 90},
        {"quality": 30, "progressive": True, "subsampling": 0},
        {"quality": 75, "subsampling": 1, "restart_marker_blocks": 3},
        {"quality": 100, "keep_rgb": True},
    ],
)
def test_jpegs_have_the_pixels_that_pillow_decodes(options: dict[str, Any]) -> None:
    for height, width in ((1, 1), (17, 40), (63, 31)):
        content = jpeg(height, width, **options)
        expected = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        assert np.array_equal(decode(content, "x").permute(1, 2, 0).numpy(), expected)


def test_damaged_jpegs_are_read_or_refused_as_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = jpeg(24, 40, quality=85)
    num_read = 0
    for _ in range(150):
        damaged = bytearray(sound)
        for place in DRAWN.integers(2, len(sound), 2):
            damaged[place] = DRAWN.integers(256)
        content = bytes(damaged)
        found = read(content)
        with monkeypatch.context() as patched:
            patched.setattr(image_files, "_decoded_jpeg", lambda *_: None)
            expected = read(content)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            num_read += 1
            assert torch.equal(found, expected)
    assert 0 < num_read < 150


def read(content: bytes) -> torch.Tensor | None:
    try:
        return decode(content, "x")
    except UnreadableSample:
        return None


def test_decoded_images_have_their_channels_next_to_each_other() -> None:
    png = io.BytesIO()
    Image.fromarray(DRAWN.integers(0, 256, (6, 9, 3), dtype=np.uint8)).save(png, "PNG")
    for content in (jpeg(6, 9), png.getvalue()):
        assert decode(content, "x").stride() == (1, 27, 3)


def test_crops_do_not_depend_on_the_layout_in_memory() -> None:
    image_HWC = torch.from_numpy(DRAWN.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    for height, width, size in ((50, 70, 16), (31, 20, 48), (7, 9, 14)):
        crop = Crop(3, 5, min(height, 47), min(width, 65), flip=True)
        near_CHW = image_HWC.permute(2, 0, 1)
        assert torch.equal(render_crop(near_CHW, crop, size), render_crop(near_CHW.contiguous(), crop, size))


def test_patches_of_bytes_normalise_to_the_same_numbers() -> None:
    images = [torch.from_numpy(DRAWN.integers(0, 256, (3, 8, 8), dtype=np.uint8)) for _ in range(2)]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torch.equal(to_patches(images, 4), patchify(torch.stack(images), 4))
    expected = patchify(normalize(to_unit(images), mean, std), 4)
    assert torch.equal(normalize_patches(to_patches(images, 4), mean, std), expected)
