"""Pictures outside of any source: find them by path, folder or URL, and decode them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from torch import Tensor

from aimcore.contracts.errors import UnreadableSample
from aimcore.io.image_files import decode
from aimcore.io.locations import file_system

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files of a folder that are taken for pictures."""
# What file systems raise for what is missing; a lacking package is an ImportError.
_UNREADABLE = (OSError, ValueError, ImportError)


def find_pictures(places: Sequence[str]) -> Iterator[str]:
    """Each place in turn; of a folder, the pictures that are in it, by name.

    Args:
        places: paths, folders, or URLs that fsspec knows.
    """
    for place in places:
        try:
            files, path = file_system(place)
            inside = files.ls(path, detail=False) if files.isdir(path) else None
        except _UNREADABLE:
            inside = None  # reading it tells why
        if inside is None:
            yield place
        else:
            names = sorted(PurePosixPath(name).name for name in inside)
            yield from (
                f"{place.rstrip('/')}/{name}" for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES
            )


def read_picture(place: str) -> tuple[bytes, Tensor]:
    """A picture's file, and its pixels as RGB ``uint8 [3, H, W]``, upright as its EXIF orientation says.

    Raises:
        UnreadableSample: it is not there, no picture, or damaged.
    """
    try:
        files, path = file_system(place)
        content: bytes = files.cat_file(path)
    except _UNREADABLE as cause:
        raise UnreadableSample(place, f"{type(cause).__name__}: {cause}") from cause
    return content, decode(content, place)
