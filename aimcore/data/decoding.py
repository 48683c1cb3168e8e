"""Encoded images as pixels: for sources of files, and for pictures that are no part of a source."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from aimcore.errors import UnreadableSample

MAX_PIXELS = 89_478_485
"""A larger image is taken for a decompression bomb; Pillow warns from the same size on."""

# What Pillow raises for damaged files, besides OSError (which covers the file system's own errors).
_DAMAGED = (
    OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def decode(content: bytes, identifier: str) -> Tensor:
    """An encoded image as RGB, ``uint8 [3, H, W]``, turned upright as its EXIF orientation says.

    Raises:
        UnreadableSample: it is damaged, no image, or larger than :data:`MAX_PIXELS`.
    """
    try:
        return _decoded(content)
    except UnidentifiedImageError as cause:
        raise UnreadableSample(identifier, "UnidentifiedImageError: it is no picture that Pillow knows") from cause
    except _DAMAGED as cause:
        raise UnreadableSample(identifier, f"{type(cause).__name__}: {cause}") from cause


def _decoded(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} px are more than {MAX_PIXELS:,} pixels")
        upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey to white; the high byte is the picture.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()
