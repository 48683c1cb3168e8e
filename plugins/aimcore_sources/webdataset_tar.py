"""The members of a tar shard. A damaged or cut shard is an error, and never read as a shorter shard.

``tarfile`` stops silently at a header with a wrong checksum, and at the end of a file that was cut between two members.
Therefore this module checks what follows the last member: it must be the end mark, two blocks of zeros, and then only
zeros. Tar has checksums of headers only: damage within a member, or within a name of over 100 bytes, which tar stores
as data, is not found here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from aimcore import AimcoreError
from aimcore.contracts.messages import printable
from aimcore.io.retries import StoreUnavailable, open_with_retries

_BLOCK = tarfile.BLOCKSIZE
_END_MARK = 2 * _BLOCK
_MAX_PADDING = 2**20
"""GNU tar fills its last record with zeros: 10,240 bytes, unless ``--blocking-factor`` is set. More zeros mean a file
that was allocated and not written."""
_MAX_HEADER = 2**20
"""Longer names and pax records, in bytes, are not read: a forged header could ask for gigabytes."""
_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, LookupError, RecursionError)


class ShardError(AimcoreError):
    """A tar shard is damaged, compressed, changed while it was used, or has a member twice."""


class Member(NamedTuple):
    """An entry of a shard that is not a folder."""

    name: str
    offset: int
    """Index of its first byte in the shard."""
    size: int
    is_file: bool
    """Whether it is a plain file: not a link, a device, or a sparse file."""


def members_of(shard: str) -> Iterator[Member]:
    """Yield every entry of ``shard`` except folders, in its order. The end of the shard is checked after the last one.

    Raises:
        ShardError: the shard is not a tar file, or a header or the end mark is damaged or missing; the message names
        the byte.
    """
    try:
        with open_with_retries(shard) as file:
            yield from _members(file)
    except StoreUnavailable:
        raise
    except _ERRORS as cause:
        raise ShardError(
            f"{shard} cannot be read by index: {cause if isinstance(cause, _Damage) else _named(cause)}. Shards must "
            "be whole, plain tar files: decompress a .tar.gz, and fetch or write a damaged one again"
        ) from cause


class _Damage(ValueError):
    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"damaged at byte {offset:,}: {problem}")


class _Headers:
    """A file from which ``tarfile`` may read headers only."""

    def __init__(self, file: Any) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise ValueError(f"a header with {size:,} bytes of names")
        content: bytes = self._file.read(size)
        return content


def _members(file: Any) -> Iterator[Member]:
    length = file.seek(0, 2)
    file.seek(0)
    headers: Any = _Headers(file)
    try:
        tar = tarfile.open(fileobj=headers, mode="r:")  # noqa: SIM115  (it opens nothing)
    except StoreUnavailable:
        raise
    except _ERRORS as cause:
        raise _Damage(0, _named(cause)) from cause
    end = 0
    while (member := _next(tar)) is not None:
        name = printable(member.name)
        # A negative size would send the scan back to an earlier position, for ever.
        if member.size < 0 or member.offset_data <= end:
            raise _Damage(member.offset, f"the header of {name!r} is damaged")
        end = member.offset_data
        if tar.offset > length:
            raise _Damage(length, f"the file ends within {name!r}, which takes bytes {end:,} to {tar.offset:,}")
        if not member.isdir():
            yield Member(member.name, end, member.size, member.isreg() and not member.issparse())
        # tarfile keeps every header it has seen; a shard may have a million.
        tar.members.clear()  # type: ignore[attr-defined]
    _require_end(file, tar.offset)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except StoreUnavailable:
        raise
    except _ERRORS as cause:
        raise _Damage(tar.offset, _named(cause)) from cause


def _require_end(file: Any, start: int) -> None:
    """Refuse anything after the last member except the end mark and padding."""
    file.seek(start)
    length = start
    while content := file.read(2**20):
        zeros = len(content) - len(content.lstrip(b"\0"))
        if zeros < len(content):
            raise _Damage(*_what_is_at(length + zeros, start))
        length += len(content)
        if length - start > _END_MARK + _MAX_PADDING:
            raise _Damage(start, f"more than {_MAX_PADDING:,} bytes of zeros follow, so it was not written to its end")
    if length - start < _END_MARK:
        raise _Damage(length, f"the file ends without an end mark ({_END_MARK:,} bytes of zeros): it was cut")


def _what_is_at(byte: int, start: int) -> tuple[int, str]:
    """Return place and kind of the damage if ``byte`` is not zero, and the last member ends at ``start``."""
    if byte < start + _BLOCK:
        return start, "the header has a wrong checksum, or was cut"
    if byte < start + _END_MARK:
        return start, "a single block of zeros is not an end mark: a header was overwritten, or the end mark is damaged"
    problem = (
        "data after the end mark: headers were overwritten by zeros, or tar files were joined (list them one by one)"
    )
    return byte, problem


def _named(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {cause}"
