"""Sources of images that a user names on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.messages import did_you_mean, shown
from aimcore.contracts.sources import Source
from aimcore.io.locations import is_local, local_path
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed

_OF_SUFFIX = {".zarr": "zarr", ".tar": "webdataset", ".parquet": "parquet"}


def source_named(text: str) -> Source:
    """Return the source that ``text`` names.

    It is one of: a source as in a recipe (JSON); the name of an installed source, for its default settings; a zarr
    group (``*.zarr``); WebDataset's shards (``*.tar``); Parquet files (``*.parquet``); or a folder: of images with a
    ``captions.jsonl``, of images, or of Parquet files. All but the first two are paths or URLs.

    Raises:
        InvalidValue: it names nothing of these, or the settings are invalid.
    """
    plugins = installed()
    known = [name for name, _ in plugins.registry("sources").items()]
    try:
        given = json.loads(text) if text.startswith("{") else {"name": text}
    except ValueError as error:
        raise InvalidValue("data", [("", f"{shown(text)} is not valid JSON: {error}")]) from error
    if not text.startswith("{") and text not in known:
        path = text.rstrip("/")
        kind = _OF_SUFFIX.get(PurePosixPath(path).suffix.lower().rstrip("}"), "image_folder")
        if kind == "image_folder" and "://" not in path and not Path(path).expanduser().is_dir():
            raise InvalidValue("data", [("", _no_source(text, known))])
        given = {"name": _kind_of_folder(path) if kind == "image_folder" else kind, "url": path}
    source: Source = structured(given, Source, plugins, {})
    return source


def _no_source(text: str, known: list[str]) -> str:
    if Path(text).expanduser().is_file():
        return f"{shown(text)} is a file: give the folder of images that it is in"
    hint = did_you_mean(text, known)
    return f"there is no folder {shown(text)}, and no source of this name{hint}; sources are {', '.join(known)}"


def destination_named(text: str) -> Source:
    """Return the source that will read what is written to ``text``: by its ending, or a source as JSON.

    ``*.zarr`` is a zarr group; ``*.tar`` and ``*.parquet`` are shards, numbered in place of a ``*``; anything else is a
    folder of image files.

    Raises:
        InvalidValue: the settings are invalid.
    """
    if text.startswith("{"):
        return source_named(text)
    path = text.rstrip("/")
    kind = _OF_SUFFIX.get(PurePosixPath(path).suffix.lower(), "captioned_folder")
    source: Source = structured({"name": kind, "url": path}, Source, installed(), {})
    return source


def require_apart(source: Source, path: Path) -> None:
    """Refuse to write where a source reads: the source would contain the result from then on.

    Args:
        source: what is read.
        path: what will be written; its name may have a ``*`` for numbers.

    Raises:
        InvalidValue: ``path`` is below a folder of the source, or its name fits the pattern of the source's files.
    """
    written = path.absolute().resolve()
    for url in _urls(plain(source)):
        read = local_path(url) if is_local(url) else None
        if read is None:
            continue
        read = read.resolve()
        is_matched = "*" in str(read) and fnmatch(str(written).replace("*", "00000"), str(read))
        if is_matched or (read.is_dir() and written.is_relative_to(read)):
            message = f"{path} would be read as a part of the source {shown(url)}: choose a place outside of it"
            raise InvalidValue("data", [("destination", message)])


def _urls(value: Any) -> Iterator[str]:
    """Yield every ``url`` of a source and of the sources in it."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "url" and isinstance(part, str):
                yield part
            yield from _urls(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _urls(part)


def _kind_of_folder(path: str) -> str:
    """Return the source that reads a folder. A remote folder is taken for one of images."""
    folder = Path(path).expanduser()
    if (folder / "captions.jsonl").is_file():
        return "captioned_folder"
    is_table = any(folder.glob("*.parquet")) if "://" not in path else False
    return "parquet" if is_table else "image_folder"
