"""Readable names of class folders, from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aimcore import InvalidValue
from aimcore.contracts.errors import DataNotFound
from aimcore.io.text_files import DamagedText, decode_text, flaw_in, parse_json, split_lines
from aimcore_sources.decoding import connect

_LISTED = 5


def names_of(folders: Sequence[str], url: str, owner: str) -> tuple[str, ...]:
    """Return the name of each folder.

    Args:
        folders: class folders, in the order of their labels.
        url: a file with a JSON object, ``{"n01440764": "tench, Tinca tinca"}``, or with a folder and its name on each
            line, separated by white space. Of several names, separated by commas, the first is used. The file may have
            other folders too.
        owner: the component whose field ``names`` has the URL.

    Raises:
        DataNotFound: the file cannot be read.
        InvalidValue: the file has another format, or lacks a folder.
    """
    content = _content(url, owner)
    try:
        names = _names(decode_text(content, url), url)
    except DamagedText as cause:
        raise InvalidValue(owner, [("names", str(cause))]) from cause
    except ValueError as cause:
        raise InvalidValue(owner, [("names", f"{url}: {cause}")]) from cause
    missing = [folder for folder in folders if folder not in names]
    if missing:
        listed = ", ".join(map(repr, missing[:_LISTED])) + (", ..." if len(missing) > _LISTED else "")
        message = f"{url} has no name for {len(missing)} of {len(folders)} class folders: {listed}"
        raise InvalidValue(owner, [("names", message)])
    return tuple(names[folder] for folder in folders)


def _content(url: str, owner: str) -> bytes:
    filesystem, path = connect(url, owner)
    try:
        content: bytes = filesystem.cat_file(path)
    except (OSError, ValueError) as cause:
        message = f"{owner}: cannot read the names of classes {url}: {type(cause).__name__}: {cause}"
        raise DataNotFound(message) from cause
    return content


def _names(text: str, url: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for folder, name in _pairs(text, url):
        if folder in names:
            raise ValueError(f"{folder!r} occurs twice")
        names[folder] = _first_of(folder, name)
    return names


def _pairs(text: str, url: str) -> Iterator[tuple[str, Any]]:
    """Return folders and the values that the file has for them."""
    if text.lstrip().startswith("{"):
        yield from parse_json(text, url, pairs=list)
        return
    for number, line in enumerate(split_lines(text), 1):
        if line.strip():
            # Without a tab, a folder's name ends at the first space.
            folder, *rest = line.strip().split("\t" if "\t" in line.strip() else None, 1)
            if not rest or not rest[0].split(",")[0].strip():
                raise ValueError(f"line {number} must be a folder and its name, got {line!r:.80}")
            yield folder.strip(), rest[0]


def _first_of(folder: str, name: Any) -> str:
    """Return the first synonym."""
    first = name.split(",")[0].strip() if isinstance(name, str) else ""
    if not first:
        raise ValueError(f"{folder!r} must have a text as its name, got {name!r:.80}")
    if flaw := flaw_in(first):
        raise ValueError(f"in the name of {folder!r}, {flaw}")
    return first
