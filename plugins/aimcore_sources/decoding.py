"""Shared code of sources of encoded images: finding and reading files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aimcore import Problem, UnreadableSample, within
from aimcore.contracts.errors import DataNotFound, LocationError
from aimcore.contracts.messages import printable
from aimcore.io.image_files import LARGEST_MAX_PIXELS
from aimcore.io.locations import file_system
from aimcore.io.retries import StoreUnavailable, with_retries


def connect(url: str, owner: str) -> tuple[Any, str]:
    """Return the file system of ``url``, and the path on it.

    Raises:
        DataNotFound: the URL is refused, see :mod:`aimcore.io.locations`, or its protocol lacks a package.
    """
    try:
        return file_system(url)
    except LocationError as cause:
        raise DataNotFound(f"{owner}: {cause}") from cause


def read_file(folder: str, name: str) -> bytes:
    """Return the content of the file ``name`` in ``folder``.

    Raises:
        UnreadableSample: the file cannot be read.
        StoreUnavailable: a remote store failed in every attempt.
    """
    filesystem, root = connect(folder, "source")
    path = f"{root.rstrip('/')}/{name}"
    try:
        content: bytes = with_retries(folder, lambda: filesystem.cat_file(path))
    except StoreUnavailable:
        raise
    except (OSError, ValueError) as cause:
        raise UnreadableSample(printable(name), f"{type(cause).__name__}: {cause}") from cause
    return content


def pixel_problems(max_pixels: int) -> Iterable[Problem]:
    """Yield a limit on the pixels of an image that is not positive, or above Pillow's own."""
    return within("max_pixels", max_pixels, 1, LARGEST_MAX_PIXELS)
