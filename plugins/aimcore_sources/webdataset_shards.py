"""Tar shards: which a URL stands for, and what is in one."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from aimcore import AimcoreError, InvalidValue
from aimcore.errors import DataNotFound
from aimcore.locations import open_location
from aimcore_sources.decoding import connect, printable

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MAX_SHARDS = 1_000_000


class ShardError(AimcoreError):
    """A tar shard is damaged, compressed, changed while it was used, or holds a member twice."""


class Member(NamedTuple):
    """A file in a shard."""

    name: str
    offset: int
    """Of its first byte, in the shard."""
    size: int


def expand(pattern: str) -> tuple[str, ...]:
    """The shards of a URL with ``{00000..00123}``, ``{a,b}`` and, where there are no braces left, ``*``.

    Raises:
        DataNotFound: nothing matches a ``*``.
        InvalidValue: they are more than a million.
    """
    shards: list[str] = []
    for url in without_braces(pattern):
        if len(shards) >= _MAX_SHARDS:
            raise InvalidValue("WebDataset", [("url", f"{pattern} stands for more than {_MAX_SHARDS:,} shards")])
        shards.extend(_matches(url) if "*" in url else [url])
    return tuple(shards)


def members_of(shard: str) -> Iterator[Member]:
    """Every regular file in ``shard``, in its order.

    Raises:
        ShardError: it is no tar file, or damaged.
    """
    try:
        with open_location(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield from _members(tar)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as cause:
        raise ShardError(
            f"{shard} cannot be read by index: {type(cause).__name__}: {cause}. Shards must be whole, plain tar files: "
            "decompress a .tar.gz, and fetch or write a damaged one again"
        ) from cause


def without_braces(pattern: str) -> Iterator[str]:
    """Each URL that the braces of ``pattern`` stand for; any ``*`` is kept."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last, listed = found.groups()
    if listed is None:
        width = len(first) if first.startswith("0") else 0
        options: Iterator[str] = (f"{number:0{width}}" for number in range(int(first), int(last) + 1))
    else:
        options = iter(listed.split(","))
    for option in options:
        yield from without_braces(pattern[: found.start()] + option + pattern[found.end() :])


def _matches(url: str) -> list[str]:
    filesystem, path = connect(url, "WebDataset")
    found = sorted(filesystem.unstrip_protocol(match) for match in filesystem.glob(path))
    if not found:
        raise DataNotFound(f"WebDataset: no shard matches {url}: check the path")
    return found


def _members(tar: tarfile.TarFile) -> Iterator[Member]:
    end = 0
    while (member := tar.next()) is not None:
        # A negative size would send the scan back to where it was, for ever.
        if member.size < 0 or member.offset_data <= end:
            raise ValueError(f"the header of {printable(member.name)!r} is damaged")
        end = member.offset_data
        if member.isreg() and not member.issparse():
            yield Member(member.name, member.offset_data, member.size)
        # tarfile keeps every header it has seen; a shard may have a million.
        tar.members.clear()  # type: ignore[attr-defined]
