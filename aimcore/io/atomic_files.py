"""Atomic writing of local files, safe against power cuts, and the error of a refused write.

A file is written under a temporary name in its own folder, forced to the disk, and renamed. A reader sees the old
content or the new one. Only this module of the core opens local files for writing; plugins may use it too. Nothing
here needs torch.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self

from aimcore.contracts.errors import AimcoreError

PARTIAL = ".partial"
"""Suffix of the name of a file or folder while it is being written."""

SAFE = "Files that were saved before are unchanged"
"""What :class:`CannotWrite` reports as safe by default."""

_LEFTOVER = re.compile(rf"\..*\.\d+{re.escape(PARTIAL)}")
_FULL_BYTES = 2**16
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
_HINTS = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EROFS: "choose a folder on a file system that can be written",
    errno.EACCES: "change the permissions, or choose another folder",
    errno.EPERM: "change the permissions, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another path",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another path",
    errno.EISDIR: "there is a folder of this name: remove it, or choose another path",
    errno.ENOENT: "the folder does not exist, or was removed in the meantime",
}


class CannotWrite(AimcoreError):
    """The system refused to write a file or to create a folder: the disk is full, read-only or gone, for example."""

    def __init__(self, path: str, problem: str, safe: str = SAFE) -> None:
        """Describe the refusal.

        Args:
            path: what was being written.
            problem: what was refused, and the reason.
            safe: what is safe, as a sentence without its full stop.
        """
        self.path = path
        self.problem = problem
        self.safe = safe
        super().__init__(f"{problem}. {safe}")

    def __reduce__(self) -> tuple[type[CannotWrite], tuple[str, str, str]]:
        """Make the error picklable, so that it can be sent to another process."""
        return type(self), (self.path, self.problem, self.safe)

    @classmethod
    def because(cls, path: str | Path, cause: Exception, safe: str = SAFE) -> CannotWrite:
        """Return the error of a write that just failed with ``cause``, an exception of the system or of a library."""
        number = cause.errno or 0 if isinstance(cause, OSError) else 0
        said = os.strerror(number) if number else str(cause)
        # Libraries raise their own exceptions for a full disk.
        hint = _HINTS.get(errno.ENOSPC if not number and _is_full(path) else number)
        free = "" if "://" in str(path) else f" ({free_space(path)})"
        return cls(str(path), f"cannot write {path}: {said}{free}" + (f"; {hint}" if hint else ""), safe)

    def saying(self, safe: str) -> CannotWrite:
        """Return this error with another sentence about what is safe."""
        return type(self)(self.path, self.problem, safe)


class FileExists(AimcoreError):
    """A file that would be written exists already, and is not replaced."""


def require_new(path: Path) -> None:
    """Refuse to write a file or folder that exists.

    Raises:
        FileExists: there is one.
        CannotWrite: the system does not say.
    """
    with writing(path):
        exists = path.exists()
    if exists:
        raise FileExists(f"{path} exists already: remove it, or name another file")


@contextmanager
def writing(path: str | Path, safe: str = SAFE) -> Iterator[None]:
    """Run a block that writes ``path``: an ``OSError`` in it becomes :class:`CannotWrite`.

    Raises:
        CannotWrite: the system refused a write. ``safe`` says what is safe.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite.because(path, error, safe) from error


@contextmanager
def replacing(path: Path, safe: str = SAFE) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; the file that the block writes there replaces ``path`` at the end.

    If the block fails, the temporary file is removed and ``path`` stays as it was. Several processes may replace one
    file at the same time; the last one wins.

    Raises:
        CannotWrite: the system refused a write, in the block too.
    """
    # Short, because a name may already be as long as the file system allows.
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}{PARTIAL}")
    with writing(path, safe):
        try:
            yield partial
            to_disk(partial)
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink()
        to_disk(path.parent)


def write_atomically(path: Path, content: str | bytes, safe: str = SAFE) -> None:
    """Replace the content of ``path``; text is written as UTF-8.

    Raises:
        CannotWrite: the system refused; the old content stays.
    """
    with replacing(path, safe) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def publish_folder(partial: Path, path: Path) -> None:
    """Give a folder whose files are complete and on the disk its name, at once.

    Raises:
        CannotWrite: the system refused.
    """
    with writing(path):
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``, which does not exist; what the block writes there appears as ``path``.

    If the block fails, the temporary folder is removed. A killed process leaves it behind, under a hidden name that
    ends with ``.partial``: a folder called ``path`` is always whole.

    Raises:
        CannotWrite: the system refused a write, in the block too, or ``path`` exists.
    """
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}{PARTIAL}")
    with writing(path):
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            for file in partial.iterdir():
                to_disk(file)
            publish_folder(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class AppendedFile:
    """A file that grows line by line. A crash may cut the last line; the others stay whole.

    As a context, it is closed at the end.
    """

    def __init__(self, path: Path, kept: str = "") -> None:
        """Replace the content of ``path`` by ``kept``, as :func:`write_atomically` does, and open it for more."""
        self._path = path
        write_atomically(path, kept)
        with writing(path):
            self._file = path.open("ab")

    def append(self, line: str) -> None:
        """Hand a line, which ends with a line feed, to the system.

        Raises:
            CannotWrite: the system refused, or the file was removed: nobody would ever find the line.
        """
        with writing(self._path):
            self._file.write(line.encode())
            self._file.flush()
            self._path.stat()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file.

        Raises:
            CannotWrite: what an earlier call left unwritten is refused again.
        """
        with writing(self._path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def remove_partial(folder: Path) -> None:
    """Remove the temporary files in ``folder`` that killed processes left while they replaced files.

    Only for a folder that no other process writes to.
    """
    for leftover in folder.glob(f".*{PARTIAL}"):
        if _LEFTOVER.fullmatch(leftover.name):
            with suppress(OSError):
                leftover.unlink()


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it, if they do not exist.

    Raises:
        CannotWrite: the system refused, or a file is in the way.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def require_writable(path: Path) -> None:
    """Check that a file can be made at ``path``, before work that takes long. The folders above it are made.

    Raises:
        CannotWrite: the system refused.
    """
    make_folder(path.absolute().parent)
    with writing(path), TemporaryFile(dir=path.absolute().parent):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def to_disk(path: Path) -> None:
    """Wait until a file's content, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder.
        if not (path.is_dir() and error.errno in _NO_FOLDER_SYNC):
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_space(path: str | Path) -> str:
    """Describe the free space at ``path``, which need not exist: ``"1.5 GB free"``."""
    found = _statistics(Path(path))
    if found is None:
        return "free space unknown"
    if found.f_files and not found.f_favail:
        return "no file entries (inodes) free"
    return f"{_in_units(found.f_bavail * found.f_frsize)} free"


def _is_full(path: str | Path) -> bool:
    found = _statistics(Path(path))
    return found is not None and found.f_bavail * found.f_frsize < _FULL_BYTES


def _statistics(path: Path) -> os.statvfs_result | None:
    for folder in (path, *path.absolute().parents):
        with suppress(OSError, ValueError):
            return os.statvfs(folder)
    return None


def _in_units(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
