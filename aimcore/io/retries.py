"""Reads of remote stores, tried again with growing waits: the only place that decides which failures may pass.

A network that fails for a while is not damage: a sample that it hides must not be replaced by another one, because a
resumed run would then read other samples. Therefore a store that keeps failing ends the work with an error.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

from loguru import logger

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.contracts.messages import printable, shown
from aimcore.io.locations import is_local, open_location, with_store_errors

T = TypeVar("T")

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt."""
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, LocationError)
_PASSING_STATUS = frozenset((408, 425, 429))
"""HTTP statuses from 400 to 499 that may pass: a time-out, too early, too many requests."""
_MISSING_STATUS = frozenset((404, 410))
_REFUSED_STATUS = frozenset((401, 403))
_WITHOUT_CREDENTIALS = frozenset(("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"))
"""Exceptions of botocore."""


class StoreUnavailable(AimcoreError):
    """A remote store failed in every attempt: its network or server has a problem, and not one sample."""


def with_retries(url: str, read: Callable[[], T]) -> T:
    """Return what ``read`` returns; if the remote store of ``url`` fails, try again after each of :data:`WAITS`.

    Files on local disks are read once. A missing file, a refused permission, and other statuses that a request can
    only get again are not tried again either.

    Raises:
        StoreUnavailable: all attempts failed.
        FileNotFoundError: the store says that the file is missing.
        PermissionError: the store refuses to return the file.
        OSError: the request cannot succeed for another reason.
    """
    if is_local(url):
        return read()
    for attempt in range(len(WAITS) + 1):
        try:
            return read()
        except with_store_errors(OSError) as error:
            cause = _behind(error)
            if isinstance(cause, _FINAL):
                raise
            said = f"{type(cause).__name__}: {printable(str(cause))}"
            if _is_final(cause):
                raise _final_error(cause)(said) from cause
            if attempt == len(WAITS):
                raise StoreUnavailable(
                    f"{shown(url)} failed in {attempt + 1} attempts within {sum(WAITS):.0f} s; the last: {said}. Check "
                    "the network and the store, then repeat the command; a run continues with --resume"
                ) from cause
            logger.warning("{}: {}; attempt {} in {:g} s", shown(url), said, attempt + 2, WAITS[attempt])
            time.sleep(WAITS[attempt])
    raise AssertionError("the last attempt returns or raises")


def _behind(error: Exception) -> Exception:
    """Return the failure that ``error`` hides, or ``error``.

    To fsspec, a file is missing if the first HTTP request for it fails for any reason.
    """
    cause = error.__cause__
    hides = isinstance(error, FileNotFoundError) and isinstance(cause, with_store_errors(OSError))
    return cause if hides and isinstance(cause, Exception) and _status(cause) not in _MISSING_STATUS else error


def _is_final(cause: Exception) -> bool:
    """Whether another attempt would fail too. Invalid URLs and certificates are a ValueError."""
    status = _status(cause)
    refused = status is not None and 400 <= status < 500 and status not in _PASSING_STATUS
    return refused or isinstance(cause, ValueError) or type(cause).__name__ in _WITHOUT_CREDENTIALS


def _final_error(cause: Exception) -> type[OSError]:
    status = _status(cause)
    if status in _MISSING_STATUS:
        return FileNotFoundError
    return PermissionError if status in _REFUSED_STATUS else OSError


def _status(cause: Exception) -> int | None:
    """Return the HTTP status in an exception of aiohttp, botocore, gcsfs, or a library with httpx or requests."""
    response: Any = getattr(cause, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")  # type: ignore[no-any-return]
    found = (getattr(cause, "status", None), getattr(response, "status_code", None), getattr(cause, "code", None))
    return next((status for status in found if isinstance(status, int)), None)


class RetriedFile(io.RawIOBase):
    """A binary file whose reads are tried again; see :func:`with_retries`."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes from the current position; all if it is negative."""
        start = self._file.tell()

        def read() -> bytes:
            self._file.seek(start)
            content: bytes = self._file.read(size)
            return content

        return with_retries(self._url, read)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``, and return the number of bytes."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, and return it."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


def open_with_retries(url: str) -> io.RawIOBase | Any:
    """Open a file for reading bytes, for a ``with`` statement; reads of remote files are tried again.

    Raises:
        LocationError: see :func:`aimcore.io.locations.file_system`.
        StoreUnavailable: the store failed in every attempt.
        OSError: the file cannot be opened.
    """
    opened = with_retries(url, lambda: open_location(url).open())
    return opened if is_local(url) else RetriedFile(url, opened)
