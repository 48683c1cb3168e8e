"""What sources of encoded images share: finding files, decoding images, showing names from outside."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import fsspec
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from aimcore import UnreadableSample
from aimcore.errors import DataNotFound

MAX_PIXELS = 89_478_485
"""A larger image is taken for a decompression bomb; Pillow warns from the same size on."""

# What Pillow raises for damaged files, besides OSError (which covers the file system's own errors).
_DAMAGED = (
    OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


def connect(url: str, owner: str) -> tuple[Any, str]:
    """The file system of ``url`` and the path on it.

    Raises:
        DataNotFound: fsspec does not know the protocol, or needs a package for it.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as cause:
        # fsspec says which package a protocol needs, or which protocols it knows.
        raise DataNotFound(f"{owner}: cannot open {url}: {cause}") from cause
    return filesystem, str(path)


def read_file(folder: str, name: str) -> bytes:
    """The content of the file ``name`` in ``folder``.

    Raises:
        UnreadableSample: it cannot be read.
    """
    filesystem, root = connect(folder, "source")
    try:
        content: bytes = filesystem.cat_file(f"{root.rstrip('/')}/{name}")
    except (OSError, ValueError) as cause:
        raise UnreadableSample(printable(name), f"{type(cause).__name__}: {cause}") from cause
    return content


def decode(content: bytes, identifier: str) -> Tensor:
    """An encoded image as RGB, ``uint8 [3, H, W]``, turned upright as its EXIF orientation says.

    Raises:
        UnreadableSample: it is damaged, no image, or larger than :data:`MAX_PIXELS`.
    """
    try:
        return _decoded(content)
    except _DAMAGED as cause:
        raise UnreadableSample(identifier, f"{type(cause).__name__}: {cause}") from cause


def printable(name: str) -> str:
    """A name from outside, with line breaks, control characters and bytes that are no text written as escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def _decoded(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} px are more than {MAX_PIXELS:,} pixels")
        upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey to white; the high byte is the picture.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()
