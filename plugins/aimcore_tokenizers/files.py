"""Files of tokenizers, with their hashes, and the optional libraries that read them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from aimcore import AimcoreError, DataNotFound, Problem
from aimcore.contracts.errors import LocationError
from aimcore.io.fetched_files import read_with
from aimcore.io.locations import location_problems
from aimcore.io.retries import StoreUnavailable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARY_ERRORS = (RuntimeError, RecursionError, ValueError, TypeError, IndexError, KeyError, OverflowError, OSError)
LARGEST_VOCABULARY = 10_000_000
"""A file with more ids is treated as damaged, because no embedding of them would fit into memory."""


class TokenizerFileError(AimcoreError):
    """A tokenizer's file is not the recorded one, or not of the expected kind."""


class MissingLibrary(AimcoreError):
    """A tokenizer requires an optional library that is not installed."""


def library(module: str, tokenizer: str, *, package: str | None = None, extra: str = "text") -> Any:
    """Import the optional ``module`` of ``package`` (by default of the same name) when it is first needed.

    Raises:
        MissingLibrary: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as cause:
        raise MissingLibrary(
            f"tokenizer {tokenizer!r} needs the package {package or module} ({cause}): pip install 'aimcore[{extra}]'"
        ) from cause


def read_file(path: str, sha256: str | None = None) -> bytes:
    """Return the content of a path or URL, whose SHA-256 must be the recorded one.

    Raises:
        DataNotFound: the file cannot be read.
        StoreUnavailable: a remote store failed in every attempt.
        TokenizerFileError: its hash differs from the recorded one.
    """
    try:
        content: bytes = read_with(path, lambda file: file.read())
    except LocationError as cause:
        raise DataNotFound(f"cannot read the tokenizer's file: {cause}") from cause
    except StoreUnavailable:
        raise
    except (OSError, ImportError, ValueError) as cause:
        raise DataNotFound(f"cannot read the tokenizer's file {path}: {type(cause).__name__}: {cause}") from cause
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise TokenizerFileError(
            f"{path} has the SHA-256 {found}, but {sha256} is recorded: it is another vocabulary, in which ids mean "
            "something else. Put the recorded file back, or record the new hash and train again"
        )
    return content


class FileFaults:
    """Add the file's name to the errors of a library that reads it: ``with FileFaults(path, "tokenizer.json"): ...``.

    tokenizers raises bare ``Exception`` for files that it cannot parse, and Rust's panics are a ``BaseException`` of
    the module ``pyo3_runtime``; sentencepiece raises the errors of its C++ code. No ``except`` clause can be as narrow
    as that, so the type of an exception is examined here: interrupts and our own errors pass.

    Raises:
        TokenizerFileError: the library could not use the file.
    """

    def __init__(self, path: str, kind: str) -> None:
        self._path = path
        self._kind = kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and (kind is Exception or kind.__module__ == "pyo3_runtime" or kind in _LIBRARY_ERRORS):
            raise TokenizerFileError(f"{self._path} is not a {self._kind}: {kind.__name__}: {error}") from error


def hash_of(path: str) -> str:
    """Return the SHA-256 of a path or URL, for the recipe.

    Raises:
        DataNotFound: the file cannot be read.
    """
    return hashlib.sha256(read_file(path)).hexdigest()


def file_problems(path: str, sha256: str) -> Iterable[Problem]:
    """Yield a refused protocol, and a recorded hash that is not one."""
    yield from location_problems("path", path)
    if not _SHA256.fullmatch(sha256):
        yield Problem("sha256", f"must be the file's SHA-256 in 64 lower-case hexadecimal digits, got {sha256!r}")
