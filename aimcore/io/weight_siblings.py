"""Small files in the folder of weights: configs, tokenizers, the index of shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.contracts.uncertainty import warn_uncertain
from aimcore.io.fetched_files import read_with
from aimcore.io.locations import file_system, in_archive, is_local, is_on_web, with_store_errors
from aimcore.io.retries import with_retries

T = TypeVar("T")

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
        StoreUnavailable: a remote store failed in every attempt.
    """
    place = beside(url, name)
    content = _asked(place, lambda: read_with(place, lambda file: file.read(_LARGEST_JSON + 1)))
    if content is not None and len(content) > _LARGEST_JSON:
        raise UnreadableWeights(place, f"it has more than {_LARGEST_JSON:,} bytes")
    return content


def has_sibling(url: str, name: str) -> bool:
    """Whether there is a file ``name`` of any size in the folder of ``url``.

    Raises:
        UnreadableWeights: the file system cannot be asked.
        StoreUnavailable: a remote store failed in every attempt.
    """
    place = beside(url, name)

    def is_file() -> bool:
        # Not files.isfile(), to which every failure is a missing file.
        files, path = file_system(place)
        return bool(with_retries(place, lambda: files.info(path))["type"] == "file")

    return bool(_asked(place, is_file))


def _asked(place: str, ask: Callable[[], T]) -> T | None:
    """Return what ``ask`` returns, or None if there is no file. A refused one is a warning: it may be missing too."""
    try:
        return ask()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except PermissionError as error:
        if is_local(place):
            raise UnreadableWeights(place, f"{type(error).__name__}: {error}") from error
        warn_uncertain(
            f"{place} is refused by its store ({error}), and is treated as missing: a store that may not be listed "
            "also refuses files that do not exist. If the file exists, allow reading it, or copy it and the weights to "
            "a local folder"
        )
        return None
    except with_store_errors(LocationError, OSError, ImportError) as error:
        raise UnreadableWeights(place, f"{type(error).__name__}: {error}") from error


def beside(url: str, name: str) -> str:
    """Return the URL of the file ``name`` in the folder of ``url``. On the web, both have the same query.

    >>> beside("hf://apple/model/model.safetensors", "config.json"), beside("model.safetensors", "config.json")
    ('hf://apple/model/config.json', 'config.json')
    >>> beside("https://host/model/model.safetensors?token=a/b", "config.json")
    'https://host/model/config.json?token=a/b'
    >>> beside("zip://a/model.safetensors::s3://bucket/a.zip", "config.json")
    'zip://a/config.json::s3://bucket/a.zip'
    """
    end = "::" if in_archive(url) else "?" if is_on_web(url) else "\0"
    path, mark, rest = url.partition(end)
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}{mark}{rest}"


def path_of(url: str) -> str:
    """Return ``url`` without the query of a URL on the web.

    >>> path_of("https://host/model.safetensors?token=a/b"), path_of("folder/is it?")
    ('https://host/model.safetensors', 'folder/is it?')
    """
    return url.partition("?")[0] if is_on_web(url) else url


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
