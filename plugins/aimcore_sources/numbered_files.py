"""Destinations that are one file, or files with numbers in place of a ``*``."""

from __future__ import annotations

from pathlib import Path

from aimcore import InvalidValue
from aimcore.io.locations import local_path


def destination(url: str, owner: str) -> Path:
    """Return the local path of a destination, which may have one ``*`` in its last part.

    Raises:
        InvalidValue: it is not on a local disk, or has other patterns.
    """
    path = local_path(url)
    if path is None:
        message = f"must be on a local disk to be written, got {url}: write it there, and copy it"
    elif any(sign in str(path) for sign in "{}?[]") or "*" in str(path.parent) or path.name.count("*") > 1:
        message = f"may have one * in its last part, for the number of the file, and no other pattern; got {url}"
    else:
        return path
    raise InvalidValue(owner, [("url", message)])


def file_of_part(path: Path, part: int) -> str:
    """Return the name of the file of a part.

    >>> file_of_part(Path("out/train-*.tar"), 7)
    'train-00007.tar'
    """
    return path.name.replace("*", f"{part:05}")
