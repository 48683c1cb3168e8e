"""The shards that a URL stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aimcore import InvalidValue
from aimcore.errors import DataNotFound
from aimcore_sources.decoding import connect

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MAX_SHARDS = 1_000_000


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
