"""Files of remote stores as a whole: their beginnings in memory, and the files on the local disk.

Requests that fail are tried again (:mod:`aimcore.io.retries`). Ranges are read where the server returns them; a server
that returns whole files only gives a stream.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from loguru import logger

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown
from aimcore.io.atomic_files import writing
from aimcore.io.locations import file_system, is_local, is_on_web, local_path
from aimcore.io.retries import with_retries

T = TypeVar("T")
READ_AHEAD = 2**16
"""Bytes that are read in addition to what was asked for."""
BLOCK = 2**23
"""Bytes of one request. If a request fails, only its block is read again."""
SECONDS_BETWEEN_LINES = 5.0
_STREAM = 0
"""fsspec's size of blocks for HTTP without ranges."""


def read_with(url: str, use: Callable[[IO[bytes]], T]) -> T:
    """Return what ``use`` returns for the open file, which it reads from the beginning.

    If the store fails, the file is opened and used again. A server may return no ranges: then ``seek`` is an error.

    Raises:
        LocationError: the URL is refused, or a package is missing.
        StoreUnavailable: the store failed in every attempt.
        OSError: the file is missing or cannot be read.
    """
    files, path = file_system(url)

    def used(block_size: int) -> T:
        with files.open(path, "rb", block_size=block_size) as file:
            # A stream returns fewer bytes than asked for; the reader asks again.
            return use(file if is_local(url) else io.BufferedReader(file, READ_AHEAD))

    return _with_or_without_ranges(
        url,
        lambda: with_retries(url, lambda: used(READ_AHEAD)),
        lambda: with_retries(url, lambda: used(_STREAM)),
    )


class FetchedFile:
    """A file by path or URL, on the local disk.

    A remote file is fetched when :attr:`path` is first read, and removed together with this object.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def path(self) -> Path:
        """The file on the local disk.

        Raises:
            LocationError: the URL is refused, or a package is missing.
            StoreUnavailable: the store failed in every attempt.
            CannotWrite: the temporary folder is full.
            OSError: the file is missing or cannot be read.
        """
        local = local_path(self.url)
        if local is not None:
            return local
        self._copy = tempfile.NamedTemporaryFile(prefix="aimcore-")  # noqa: SIM115  (removed with this object)
        fetch(self.url, self._copy)
        return Path(self._copy.name)

    @cached_property
    def size_and_hash(self) -> tuple[int, str]:
        """The number of bytes, and the SHA-256 in hexadecimal.

        Raises:
            LocationError, StoreUnavailable, CannotWrite, OSError: see :attr:`path`.
        """
        found, size = hashlib.sha256(), 0
        with self.path.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
                size += len(block)
        return size, found.hexdigest()


def fetch(url: str, target: Any) -> None:
    """Copy the file at ``url`` to the open file ``target``. The log shows the progress of a long transfer.

    Raises:
        LocationError: the URL is refused, or a package is missing.
        StoreUnavailable: the store failed in every attempt.
        CannotWrite: the system refused to write.
        OSError: the file is missing or cannot be read.
    """
    progress = _Progress(url)
    _with_or_without_ranges(
        url, lambda: _fetch_ranges(url, target, progress), lambda: _fetch_stream(url, target, progress)
    )
    with writing(target.name):
        target.flush()


def _with_or_without_ranges(url: str, ranges: Callable[[], T], stream: Callable[[], T]) -> T:
    try:
        return ranges()
    except ValueError as error:  # fsspec's error for a server that returned the whole file instead of a range
        if isinstance(error, AimcoreError | OSError) or not is_on_web(url):
            raise
        return stream()


def _fetch_ranges(url: str, target: Any, progress: _Progress) -> None:
    files, path = file_system(url)
    with with_retries(url, lambda: files.open(path, "rb", block_size=READ_AHEAD)) as file:
        size = getattr(file, "size", None)
        if size is None:
            _fetch_stream(url, target, progress)
            return
        done = 0
        while done < size:
            content = with_retries(url, lambda start=done: _block(file, start, size))  # type: ignore[misc]
            with writing(target.name):
                target.write(content)
            done += len(content)
            progress.show(done, size)


def _block(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    content: bytes = file.read(min(BLOCK, size - start))
    if not content:
        raise OSError(f"it ended after {start:,} of {size:,} bytes")
    return content


def _fetch_stream(url: str, target: Any, progress: _Progress) -> None:
    files, path = file_system(url)

    def copy() -> None:
        done = 0
        with writing(target.name):
            target.seek(0)
            target.truncate()
        with files.open(path, "rb", block_size=_STREAM if is_on_web(url) else READ_AHEAD) as file:
            while content := file.read(BLOCK):
                with writing(target.name):
                    target.write(content)
                done += len(content)
                progress.show(done, None)

    with_retries(url, copy)


class _Progress:
    """Lines in the log every few seconds."""

    def __init__(self, url: str) -> None:
        self._url, self._last = url, time.monotonic()

    def show(self, done: int, size: int | None) -> None:
        """Log how many bytes were fetched."""
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            share = "" if size is None else f" of {size / 1e6:,.0f} MB ({done / size:.0%})"
            logger.info("fetching {}: {:,.0f}{}", shown(self._url), done / 1e6, share or " MB")
