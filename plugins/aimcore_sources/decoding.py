"""What sources of encoded images share: finding files, showing names from outside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aimcore import Problem, UnreadableSample, within
from aimcore.data.decoding import LARGEST_MAX_PIXELS
from aimcore.errors import DataNotFound, LocationError
from aimcore.locations import file_system


def connect(url: str, owner: str) -> tuple[Any, str]:
    """The file system of ``url`` and the path on it.

    Raises:
        DataNotFound: the URL is refused, see :mod:`aimcore.locations`, or its protocol lacks a package.
    """
    try:
        return file_system(url)
    except LocationError as cause:
        raise DataNotFound(f"{owner}: {cause}") from cause


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


def pixel_problems(max_pixels: int) -> Iterable[Problem]:
    """A limit on the pixels of a picture is positive, and at most what Pillow itself decodes."""
    return within("max_pixels", max_pixels, 1, LARGEST_MAX_PIXELS)


def printable(name: str) -> str:
    """A name from outside, with line breaks, control characters and bytes that are no text written as escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)
