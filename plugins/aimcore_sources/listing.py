"""The files of a folder, links followed, with counts of what is left out."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from loguru import logger

from aimcore.io.locations import local_path
from aimcore.io.retries import with_retries
from aimcore_sources.decoding import connect
from aimcore_sources.left_out import with_ending

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_HIDDEN = "hidden files and folders"
_BROKEN = "broken links"
_CYCLES = "folders that links lead to again"
_SPECIAL = "files that are neither plain files nor links to such"
_CLOSED = "folders that cannot be listed"


class Listing(NamedTuple):
    """The files and folders in a folder."""

    files: tuple[str, ...]
    """Paths relative to the folder, sorted, without hidden ones."""
    folders: tuple[str, ...]
    """Folders directly in it, sorted. If a file system has no folders of its own, those that contain files."""
    left_out: Counter[str]

    def with_suffix(self, suffixes: Iterable[str]) -> list[str]:
        """Return the files whose suffix, in lower case, is one of ``suffixes``."""
        wanted = set(suffixes)
        return [name for name in self.files if _suffix(name) in wanted]

    def of_other_kinds(self, suffixes: Iterable[str]) -> Counter[str]:
        """Count the files with each other suffix."""
        known = set(suffixes)
        others = [_suffix(name) for name in self.files]
        return Counter(with_ending("files of other kinds", suffix[1:]) for suffix in others if suffix not in known)


def listing_of(url: str, owner: str) -> Listing:
    """List all files in ``url`` and its sub-folders.

    Links on a local disk are followed, also out of the folder. A real folder is listed once below each folder directly
    in ``url``. So links in a circle end, and two classes may still link to one folder. Real folders come before
    links to them.

    Raises:
        DataNotFound: the URL is refused, see :mod:`aimcore.io.locations`, or its protocol lacks a package.
    """
    filesystem, root = connect(url, owner)
    local = local_path(url)
    if local is not None:
        return _local(str(local))
    root = root.rstrip("/")
    names = [path.removeprefix(root).lstrip("/") for path in with_retries(url, lambda: filesystem.find(root))]
    shown = sorted(name for name in names if name and not _is_hidden(name))
    left_out = Counter({_HIDDEN: sum(map(_is_hidden, names))})
    return Listing(tuple(shown), tuple(sorted({name.split("/")[0] for name in shown if "/" in name})), left_out)


def _local(root: str) -> Listing:
    files: list[str] = []
    left_out: Counter[str] = Counter()
    folders = []
    for entry in _entries(root, left_out):
        if _is_folder(entry):
            folders.append(entry.name)
            files += _below(entry, root, left_out)
        else:
            files += _file(entry, entry.name, left_out)
    return Listing(tuple(sorted(files)), tuple(sorted(folders)), left_out)


def _below(top: os.DirEntry[str], root: str, left_out: Counter[str]) -> Iterator[str]:
    """Yield the files below a folder directly in ``root``: real folders first, then links, sorted by name."""
    seen = {os.path.realpath(root)}
    pending, links = [(f"{top.name}/", top.path)], list[tuple[str, str]]()
    while pending or links:
        links.sort(reverse=True)
        prefix, path = (pending or links).pop()
        real = os.path.realpath(path)
        if real in seen:
            left_out[_CYCLES] += 1
            continue
        seen.add(real)
        for entry in _entries(path, left_out):
            if _is_folder(entry):
                (links if entry.is_symlink() else pending).append((f"{prefix}{entry.name}/", entry.path))
            else:
                yield from _file(entry, prefix + entry.name, left_out)


def _file(entry: os.DirEntry[str], name: str, left_out: Counter[str]) -> Iterator[str]:
    if os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
        yield name
    else:
        left_out[_SPECIAL if os.path.exists(entry.path) else _BROKEN] += 1


def _entries(path: str, left_out: Counter[str]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, without hidden ones."""
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except FileNotFoundError:
        return []
    except OSError as cause:
        logger.warning("cannot list {}: {}", path, cause)
        left_out[_CLOSED] += 1
        return []
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    left_out[_HIDDEN] += len(entries) - len(shown)
    return shown


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # entry.is_dir() fails for a link to itself; os.path.isdir() returns False.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()
