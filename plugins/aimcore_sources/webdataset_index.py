"""Where the members of tar shards lie: headers are scanned once, and what was found is kept beside the shard."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from aimcore import AimcoreError, InvalidValue
from aimcore.errors import DataNotFound
from aimcore_sources.decoding import connect, printable

_FORMAT = 1
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MAX_SHARDS = 1_000_000


class ShardError(AimcoreError):
    """A tar shard is damaged, compressed, or holds a member twice."""


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
    for url in _without_braces(pattern):
        if len(shards) >= _MAX_SHARDS:
            raise InvalidValue("WebDataset", [("url", f"{pattern} stands for more than {_MAX_SHARDS:,} shards")])
        shards.extend(_matches(url) if "*" in url else [url])
    return tuple(shards)


def members_of(shard: str, cache_folder: str | None) -> tuple[Member, ...]:
    """Every regular file in ``shard``, in its order.

    What was found is written to ``cache_folder``, or beside a shard on a local disk, and used again while the shard's
    size and time of change stay what they were. Where it cannot be written, the shard is scanned each time.

    Raises:
        DataNotFound: there is no such shard.
        ShardError: it is no tar file, or damaged.
    """
    filesystem, path = connect(shard, "WebDataset")
    try:
        state = _state(filesystem.info(path))
    except (OSError, ValueError) as cause:
        raise DataNotFound(f"WebDataset: cannot open the shard {shard}: {type(cause).__name__}: {cause}") from cause
    cache = _cache_path(shard, filesystem, path, cache_folder)
    known = None if cache is None else _kept(cache, state)
    if known is None:
        known = tuple(_scanned(shard))
        if cache is not None:
            _keep(cache, state, known)
    return known


def _without_braces(pattern: str) -> Iterator[str]:
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
        yield from _without_braces(pattern[: found.start()] + option + pattern[found.end() :])


def _matches(url: str) -> list[str]:
    filesystem, path = connect(url, "WebDataset")
    found = sorted(filesystem.unstrip_protocol(match) for match in filesystem.glob(path))
    if not found:
        raise DataNotFound(f"WebDataset: no shard matches {url}: check the path")
    return found


def _scanned(shard: str) -> Iterator[Member]:
    try:
        with fsspec.open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield from _members(tar)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as cause:
        raise ShardError(
            f"{shard} cannot be read by index: {type(cause).__name__}: {cause}. Shards must be whole, plain tar files: "
            "decompress a .tar.gz, and fetch or write a damaged one again"
        ) from cause


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


def _state(info: dict[str, Any]) -> list[str]:
    """What changes when a shard does: size and, where the file system tells it, time of change or version."""
    told = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag"))
    return [str(info.get("size")), next((str(value) for value in told if value is not None), "")]


def _cache_path(shard: str, filesystem: Any, path: str, cache_folder: str | None) -> Path | None:
    if cache_folder is not None:
        name = hashlib.blake2b(shard.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return Path(cache_folder).expanduser() / f"{Path(path).name}.{name}.index.json"
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
    return Path(f"{path}.index.json") if "file" in protocols else None


def _kept(cache: Path, state: list[str]) -> tuple[Member, ...] | None:
    """What was found before; None if it is not there, damaged, or of another state of the shard."""
    try:
        content = json.loads(cache.read_bytes())
        if content["format"] != _FORMAT or content["shard"] != state:
            return None
        return tuple(Member(str(name), int(offset), int(size)) for name, offset, size in content["members"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _keep(cache: Path, state: list[str], members: tuple[Member, ...]) -> None:
    """Write the index at once or not at all: several processes may do so at the same time."""
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    # A folder that cannot be written costs time only: the shard is scanned each time.
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps({"format": _FORMAT, "shard": state, "members": members}), encoding="ascii")
            part.replace(cache)
        finally:
            part.unlink(missing_ok=True)
