"""The shards that a URL with braces or ``*`` names."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator

from aimcore import InvalidValue
from aimcore.contracts.errors import DataNotFound
from aimcore.io.locations import local_path
from aimcore.io.retries import with_retries
from aimcore_sources.decoding import connect
from aimcore_sources.listing import listing_of

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MAX_SHARDS = 1_000_000


def expand(pattern: str, owner: str = "WebDataset") -> tuple[str, ...]:
    """Return the shards of a URL with ``{00000..00123}``, ``{a,b}`` and, if no braces are left, ``*``.

    Raises:
        DataNotFound: nothing matches a ``*``.
        InvalidValue: there are more than a million.
    """
    shards: list[str] = []
    for url in without_braces(pattern):
        if len(shards) >= _MAX_SHARDS:
            raise InvalidValue(owner, [("url", f"{pattern} names more than {_MAX_SHARDS:,} shards")])
        shards.extend(_matches(url, owner) if "*" in url else [url])
    return tuple(shards)


def without_braces(pattern: str) -> Iterator[str]:
    """Yield each expansion of the braces of ``pattern``; any ``*`` is kept."""
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


def _matches(url: str, owner: str) -> list[str]:
    filesystem, path = connect(url, owner)
    matches = _local_matches(path) if local_path(url) else with_retries(url, lambda: filesystem.glob(path))
    found = sorted(filesystem.unstrip_protocol(match) for match in matches)
    if not found:
        raise DataNotFound(f"{owner}: no shard matches {url}: check the path")
    return found


def _local_matches(pattern: str) -> list[str]:
    """Return the matches on a local disk. Links to folders are followed, unlike in fsspec; each folder counts once."""
    found = _below(pattern) if "**" in pattern else glob.glob(pattern)
    # The shortest path of each is kept.
    ordered = sorted(found, key=lambda path: (path.count("/"), path), reverse=True)
    return list({(os.path.realpath(os.path.dirname(path)), os.path.basename(path)): path for path in ordered}.values())


def _below(pattern: str) -> list[str]:
    """Return the matches of a pattern with ``**``, also if links form circles."""
    parts = pattern.split("/")
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root, wanted = "/".join(parts[:fixed]), parts[fixed:]
    return [f"{root}/{name}" for name in listing_of(root or "/", "WebDataset").files if _fits(name.split("/"), wanted)]


def _fits(names: list[str], wanted: list[str]) -> bool:
    if not names or not wanted:
        return not names and not wanted
    if wanted[0] == "**":
        return any(_fits(names[skipped:], wanted[1:]) for skipped in range(len(names)))
    return fnmatch.fnmatchcase(names[0], wanted[0]) and _fits(names[1:], wanted[1:])
