"""Images outside of any source: found by path, folder or URL, and decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from torch import Tensor

from aimcore.contracts.errors import UnreadableSample
from aimcore.io.image_files import decode
from aimcore.io.locations import file_system, is_on_web
from aimcore.io.retries import StoreUnavailable, with_retries

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of files in a folder that are taken for images."""
# Exceptions of file systems for missing files; a lacking package is an ImportError.
_UNREADABLE = (OSError, ValueError, ImportError)


def find_pictures(places: Sequence[str]) -> Iterator[str]:
    """Yield each place in turn; for a folder, the images in it, by name.

    Args:
        places: paths, folders, or URLs of them.
    """
    for place in places:
        try:
            inside = None if is_on_web(place) else _inside(place)
        except _UNREADABLE:
            inside = None  # reading the place raises the reason
        if inside is None:
            yield place
        else:
            names = sorted(PurePosixPath(name).name for name in inside)
            yield from (
                f"{place.rstrip('/')}/{name}" for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES
            )


def _inside(place: str) -> Sequence[str] | None:
    """Return the entries of a folder, or None. On the web, asking would download the file."""
    files, path = file_system(place)
    entries: Sequence[str] | None = with_retries(
        place, lambda: files.ls(path, detail=False) if files.isdir(path) else None
    )
    return entries


def read_picture(place: str) -> tuple[bytes, Tensor]:
    """A picture's file, and its pixels as RGB ``uint8 [3, H, W]``, upright as its EXIF orientation says.

    Raises:
        UnreadableSample: the file is missing, damaged, or not an image.
        StoreUnavailable: a remote store failed in every attempt.
    """
    try:
        files, path = file_system(place)
        content: bytes = with_retries(place, lambda: files.cat_file(path))
    except FileNotFoundError as cause:
        raise UnreadableSample(place, "there is no such file") from cause
    except StoreUnavailable:
        raise
    except _UNREADABLE as cause:
        raise UnreadableSample(place, f"{type(cause).__name__}: {cause}") from cause
    return content, decode(content, place)
