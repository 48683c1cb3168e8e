"""Decode image files to pixels, for sources of files and for pictures outside of any source."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor, from_numpy

from aimcore.contracts.errors import UnreadableSample

MAX_PIXELS = 89_478_485
"""The default limit on the pixels of one picture: about 9,459 x 9,459, from where on Pillow warns of a bomb."""
LARGEST_MAX_PIXELS = 2 * MAX_PIXELS
"""The highest limit that can be set: Pillow itself refuses larger pictures."""
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are opened, by Pillow's names. Pillow knows more, some of which start other programs (EPS) or have
decoders that are rarely tested."""

DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, SyntaxError, SystemError, TypeError, ValueError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What decoders raise for damaged files. Pillow's plugins index, unpack and divide by what a file says, so a damaged
file may end in any of these. This is the only place that catches so much, and it wraps nothing but the decoder."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def decode(content: bytes, identifier: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file as RGB, ``uint8 [3, H, W]``, turned upright as its EXIF orientation says.

    An orientation that cannot be read is ignored. Of an animation the first frame is read. Every mode becomes RGB:

    * Alpha is dropped and not composited. Palettes, CMYK and YCbCr are converted as Pillow does, without ICC profiles.
    * 16-bit channels keep their high byte; 12-bit grey keeps its high 8 bits.
    * Floating-point grey must lie in [0, 1], and is multiplied by 255.
    * 32-bit integers and signed 16-bit integers have no agreed white, and are refused.

    Args:
        content: the file, in one of :data:`FORMATS`.
        identifier: names the file in the error.
        max_pixels: a picture with more pixels is refused before its pixels are decoded.

    Raises:
        UnreadableSample: the file is damaged, of another format, too large, or its grey values have no agreed range.
    """
    try:
        return _pixels(_rgb(content, max_pixels))
    except UnidentifiedImageError as cause:
        problem = f"it is damaged, or none of {', '.join(FORMATS)}: fetch it again, or convert it to one of them"
        raise UnreadableSample(identifier, problem if content else "the file is empty: fetch it again") from cause
    except DECODER_ERRORS as cause:
        raise UnreadableSample(identifier, f"{type(cause).__name__}: {cause}") from cause


def ignore_metadata_warnings() -> None:
    """Silence Pillow's warnings about odd metadata, in this process: it gives one per file, and pixels matter here.

    The filter is added once per process that loads data. ``warnings.catch_warnings`` around each picture would not do:
    it swaps the filters of all threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _rgb(content: bytes, max_pixels: int) -> Image.Image:
    """The picture upright and in mode RGB. The decoded original is released when this returns."""
    Image.init()  # loads all of Pillow's formats, once
    formats = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(io.BytesIO(content), formats=formats) as opened:
        if opened.width * opened.height > max_pixels:
            raise ValueError(f"{opened.width} x {opened.height} px are more than {max_pixels:,} pixels (max_pixels)")
        opened.load()
        # Pillow would look for a colour that stands for transparency, and warn.
        opened.info.pop("transparency", None)
        picture = _shallow(opened)
        turn = _turn(opened)
        picture = picture if turn is None else picture.transpose(turn)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _turn(opened: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODER_ERRORS:
        return None  # the pixels are sound


def _shallow(opened: Image.Image) -> Image.Image:
    """The picture with 8 bits per channel: Pillow would clip deep grey instead of scaling it."""
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
    """Floats in [0, 1] as 8 bits."""
    low, high = values.min(), values.max()
    if values.dtype.kind != "f":
        raise ValueError(f"grey integers from {low} to {high} have no agreed white: save 8 or 16 bits, unsigned")
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ValueError(f"grey floats must lie from 0 to 1, got {low:g} to {high:g}: rescale them")
    grey: npt.NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return grey


def _pixels(picture: Image.Image) -> Tensor:
    """``uint8 [3, H, W]``."""
    return from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
