"""Image files as pixels: which formats, which modes by which rule, and damage of any kind named."""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aimcore.contracts.errors import UnreadableSample
from aimcore.io.image_files import FORMATS, decode

SOUND = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))


def encoded(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def grey(values: np.ndarray[Any, Any], **options: Any) -> list[int]:
    """The first channel of a grey TIFF, flattened; all three are equal."""
    image_CHW = decode(encoded(Image.fromarray(values), "TIFF", **options), "grey.tif")
    assert (image_CHW == image_CHW[:1]).all()
    return image_CHW[0].flatten().tolist()


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_formats_that_are_opened(format_name: str) -> None:
    assert decode(encoded(SOUND, format_name), "x").shape == (3, 16, 24)


@pytest.mark.parametrize("format_name", ["EPS", "DDS", "ICO", "TGA", "PCX", "JPEG2000"])
def test_other_formats_are_not_opened(format_name: str) -> None:
    with pytest.raises(UnreadableSample, match=r"cannot read x: it is damaged, or none of AVIF.* convert"):
        decode(encoded(SOUND, format_name), "x")


def test_cut_and_empty_files_are_not_taken_for_other_formats() -> None:
    with pytest.raises(UnreadableSample, match=r"cannot read x: it is damaged, or none of AVIF.*: fetch it again, or"):
        decode(encoded(SOUND, "AVIF")[:20], "x")
    with pytest.raises(UnreadableSample, match="cannot read x: the file is empty: fetch it again"):
        decode(b"", "x")


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of (tag, type, count, four bytes of value)."""
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4)


SHORT, ASCII, TURNED = 3, 2, (0x0112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_with_text_where_a_number_belongs_is_read(format_name: str) -> None:
    block = exif((0x0100, ASCII, 3, b"ab\0\0"), TURNED, (0x8827, ASCII, 4, b"iso\0"))
    assert decode(encoded(SOUND, format_name, exif=block), "x").shape == (3, 24, 16)


@pytest.mark.parametrize(
    "block",
    [
        exif((0x0112, ASCII, 2, b"6\0\0\0")),
        exif((0x0112, SHORT, 1, struct.pack("<HH", 9, 0))),
        exif(TURNED)[:20],
        b"Exif\0\0nonsense",
    ],
    ids=["text", "out of range", "cut", "nonsense"],
)
def test_an_orientation_that_cannot_be_read_is_ignored(block: bytes) -> None:
    assert decode(encoded(SOUND, "JPEG", exif=block), "x").shape == (3, 16, 24)


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    for format_name in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format_name == "WEBP" else {}
        content = encoded(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
        assert decode(content, "x").unique().tolist() == [10]


def test_deep_grey_keeps_its_high_bits() -> None:
    assert grey(np.array([[0, 255, 0x4000, 0xFFFF]], dtype=np.uint16)) == [0, 0, 0x40, 255]
    assert grey(np.array([[0, 255, 0x4000, 0xFFFF]], dtype=">u2")) == [0, 0, 0x40, 255]
    # 12 bits, packed: 0x000, 0xABC, 0xFFF, 0x7FF.
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 134, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    content = header.ljust(134, b"\0") + bytes.fromhex("000ABCFFF7FF")
    assert decode(content, "x")[0].flatten().tolist() == [0, 0xAB, 0xFF, 0x7F]


def test_white_is_zero_in_deep_grey_too() -> None:
    assert grey(np.array([[0, 0x4000, 0xFFFF]], dtype=np.uint16), tiffinfo={262: 0}) == [255, 255 - 0x40, 0]


def test_floats_from_zero_to_one_are_scaled() -> None:
    assert grey(np.array([[0.0, 0.25, 0.5, 1.0]], dtype=np.float32)) == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 70.5]], dtype=np.float32), r"grey floats must lie from 0 to 1, got 0 to 70.5: rescale"),
        (np.array([[-0.5, 1.0]], dtype=np.float32), r"grey floats must lie from 0 to 1, got -0.5 to 1: rescale"),
        (np.array([[0.0, np.nan]], dtype=np.float32), r"grey floats must lie from 0 to 1, got nan to nan: rescale"),
        (np.array([[0, 70_000]], dtype=np.int32), r"grey integers from 0 to 70000 have no agreed white: save 8 or 16"),
    ],
)
def test_grey_without_an_agreed_range_is_refused_with_its_range(values: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(UnreadableSample, match=f"cannot read grey.tif: ValueError: {message}"):
        grey(values)


def test_every_other_mode_becomes_rgb_by_the_stated_rule() -> None:
    def first(picture: Image.Image, format_name: str, **options: Any) -> list[int]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return decode(encoded(picture, format_name, **options), "x")[:, 0, 0].tolist()

    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert first(Image.new("1", (2, 2), 1), "PNG") == [255, 255, 255]
    assert first(Image.new("LA", (2, 2), (7, 0)), "PNG") == [7, 7, 7]
    assert first(Image.new("RGBA", (2, 2), (1, 2, 3, 0)), "PNG") == [1, 2, 3]
    assert first(palette, "PNG", transparency=b"\0\0") == [10, 20, 30]
    # Cyan takes red away, black takes all: 255 - 255, 255 - 0 - 0, ...
    assert first(Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF") == [0, 255, 255]
    # ITU-R BT.601: R = Y + 1.402 (Cr - 128) and so on; grey where both differences are 128.
    assert first(Image.new("YCbCr", (2, 2), (90, 128, 128)), "TIFF") == [90, 90, 90]


@pytest.mark.parametrize("format_name", FORMATS)
def test_damage_of_any_kind_is_an_unreadable_sample(format_name: str) -> None:
    whole = encoded(SOUND, format_name)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(whole, dtype=np.uint8).copy()
        places = random.integers(0, min(len(whole), 400), 3)
        damaged[places] = random.integers(0, 256, 3)
        content = damaged.tobytes()[: int(random.integers(1, 2 * len(whole)))]
        with suppress(UnreadableSample):
            assert decode(content, "x", max_pixels=1_000_000).shape[0] == 3
