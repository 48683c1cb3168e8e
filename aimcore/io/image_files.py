"""Decoding of image files to pixels, for sources of files and for single images."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor, from_numpy

from aimcore.contracts.errors import UnreadableSample

MAX_PIXELS = 89_478_485
"""Default limit on the pixels of an image, about 9,459 x 9,459: from there on Pillow warns of a decompression bomb."""
LARGEST_MAX_PIXELS = 2 * MAX_PIXELS
"""Highest limit that can be set: Pillow itself refuses larger images."""
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The accepted formats, by Pillow's names. Pillow knows more, some of which start other programs (EPS) or have rarely
tested decoders."""

DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, SyntaxError, SystemError, TypeError, ValueError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""Exceptions that decoders raise for damaged files. Pillow's plugins use values of the file as indices and divisors,
so a damaged file can raise any of these. Only this module catches so much, and only around the decoder."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image of each EXIF orientation upright."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def decode(content: bytes, identifier: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file as RGB, ``uint8 [3, H, W]``, upright according to its EXIF orientation.

    An unreadable orientation is ignored. Of an animation the first frame is read. Every mode is converted to RGB:

    * Alpha is dropped and not composited. Palettes, CMYK and YCbCr are converted as Pillow does, without ICC profiles.
    * 16-bit channels keep their high byte; 12-bit grey keeps its high 8 bits.
    * Floating-point grey must lie in [0, 1], and is multiplied by 255.
    * 32-bit integers and signed 16-bit integers have no agreed white value, and are refused.

    Channels are next to each other in memory (torch's ``channels_last``), because torch resizes such images twice as
    fast, to the same pixels. torchvision decodes upright JPEGs in colour, which saves two copies of the pixels; it and
    Pillow both use libjpeg-turbo, whose pixels are the same.

    Args:
        content: the file, in one of :data:`FORMATS`.
        identifier: names the file in the error.
        max_pixels: an image with more pixels is refused before it is decoded.

    Raises:
        UnreadableSample: the file is damaged, of another format, too large, or its grey values have no agreed range.
    """
    try:
        return _pixels(content, max_pixels)
    except UnidentifiedImageError as cause:
        problem = f"it is damaged, or none of {', '.join(FORMATS)}: fetch it again, or convert it to one of them"
        raise UnreadableSample(identifier, problem if content else "the file is empty: fetch it again") from cause
    except DECODER_ERRORS as cause:
        raise UnreadableSample(identifier, f"{type(cause).__name__}: {cause}") from cause


def form_of(content: bytes) -> str:
    """Return the format and mode of an image file that can be decoded, by Pillow's names: ``JPEG RGB``, ``PNG P``."""
    Image.init()
    try:
        with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN]) as opened:
            return f"{opened.format} {opened.mode}"
    except DECODER_ERRORS:
        return "unknown"


def ignore_metadata_warnings() -> None:
    """Silence Pillow's warnings about odd metadata in this process: there may be one per file, and only pixels matter.

    The filter is added once per process that loads data. ``warnings.catch_warnings`` around each image would not work:
    it replaces the filters of all threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _pixels(content: bytes, max_pixels: int) -> Tensor:
    """Return ``uint8 [3, H, W]``, upright. What Pillow decoded is released on return."""
    Image.init()  # loads all of Pillow's formats, once
    formats = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(io.BytesIO(content), formats=formats) as opened:
        if opened.width * opened.height > max_pixels:
            raise ValueError(f"{opened.width} x {opened.height} px are more than {max_pixels:,} pixels (max_pixels)")
        if opened.format == "JPEG" and opened.mode == "RGB" and _turn(opened) is None:
            decoded_CHW = _decoded_jpeg(content, (opened.height, opened.width))
            if decoded_CHW is not None:
                return decoded_CHW
        opened.load()
        # Pillow would look for a transparent colour, and warn.
        opened.info.pop("transparency", None)
        picture = _shallow(opened)
        turn = _turn(opened)
        picture = picture if turn is None else picture.transpose(turn)
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    return from_numpy(np.array(rgb)).permute(2, 0, 1)


def _decoded_jpeg(content: bytes, size: tuple[int, int]) -> Tensor | None:
    """Return ``uint8 [3, H, W]``, or None where torchvision cannot decode the file: Pillow then decides."""
    from torchvision.io import ImageReadMode, decode_jpeg  # loading it takes a second

    file = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        decoded_CHW: Tensor = decode_jpeg(file, mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    return decoded_CHW if decoded_CHW.shape[1:] == size else None


def _turn(opened: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODER_ERRORS:
        return None  # the pixels are intact


def _shallow(opened: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel: Pillow would clip deep grey values instead of scaling them."""
    tags: Mapping[int, Any] = getattr(opened, "tag_v2", {})
    if opened.mode.startswith("I;16"):
        bits = int(tags[_BITS_PER_SAMPLE][0]) if _BITS_PER_SAMPLE in tags else 16
        grey = (np.asarray(opened) >> (bits - 8)).astype(np.uint8)
    elif opened.mode == "I" and opened.format in ("PNG", "PPM"):
        grey = (np.asarray(opened) >> 8).astype(np.uint8)  # both have 16 bits at most
    elif opened.mode in ("I", "F"):
        grey = _unit_grey(np.asarray(opened))
    else:
        return opened
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # Pillow inverts 8-bit grey only
    return Image.fromarray(255 - grey if inverted else grey)


def _unit_grey(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert floats in [0, 1] to 8 bits."""
    low, high = values.min(), values.max()
    if values.dtype.kind != "f":
        raise ValueError(f"grey integers from {low} to {high} have no agreed white: save 8 or 16 bits, unsigned")
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ValueError(f"grey floats must lie from 0 to 1, got {low:g} to {high:g}: rescale them")
    grey: npt.NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return grey
