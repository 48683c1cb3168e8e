"""Small files in the folder of weights: configs, tokenizers, the index of shards."""

from __future__ import annotations

import json
from typing import Any

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.io.locations import file_system, with_store_errors

_LARGEST_JSON = 2**24


class UnreadableWeights(AimcoreError):
    """A file of weights cannot be read: it is missing, damaged, of an unknown format, or would run code."""

    def __init__(self, url: str, problem: str, kind: str = "weights") -> None:
        self.url = url
        self.problem = problem
        self.kind = kind
        super().__init__(f"{url} cannot be read as {kind}: {problem}")

    def __reduce__(self) -> tuple[type[UnreadableWeights], tuple[str, str, str]]:
        """Make the error picklable, so that it can be sent to another process."""
        return type(self), (self.url, self.problem, self.kind)


def read_sibling(url: str, name: str) -> bytes | None:
    """Return the content of the small file ``name`` in the folder of ``url``, or None if it does not exist.

    Raises:
        UnreadableWeights: there is one, but it is too large or cannot be read.
    """
    place = beside(url, name)
    try:
        files, path = file_system(place)
        if not files.isfile(path):
            return None
        if files.size(path) is not None and files.size(path) > _LARGEST_JSON:
            raise UnreadableWeights(place, f"it has more than {_LARGEST_JSON:,} bytes")
        content: bytes = files.cat_file(path)
    except FileNotFoundError:
        return None
    except with_store_errors(OSError, ImportError) as error:
        raise UnreadableWeights(place, f"{type(error).__name__}: {error}") from error
    return content


def has_sibling(url: str, name: str) -> bool:
    """Whether there is a file ``name`` of any size in the folder of ``url``.

    Raises:
        UnreadableWeights: the file system cannot be asked.
    """
    place = beside(url, name)
    try:
        files, path = file_system(place)
        return bool(files.isfile(path))
    except with_store_errors(OSError, ImportError, LocationError) as error:
        raise UnreadableWeights(place, f"{type(error).__name__}: {error}") from error


def beside(url: str, name: str) -> str:
    """Return the URL of the file ``name`` in the folder of ``url``.

    >>> beside("hf://apple/model/model.safetensors", "config.json"), beside("model.safetensors", "config.json")
    ('hf://apple/model/config.json', 'config.json')
    """
    folder, slash, _ = url.rpartition("/")
    return f"{folder}{slash}{name}"


def json_object(content: bytes | None, url: str) -> dict[str, Any] | None:
    """Return the JSON object in a file next to weights; None if there is no file.

    Raises:
        UnreadableWeights: the content is something else.
    """
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableWeights(url, f"{type(error).__name__}: {error}", "JSON") from error
    if not isinstance(value, dict):
        raise UnreadableWeights(url, "it is not an object", "JSON")
    return value
