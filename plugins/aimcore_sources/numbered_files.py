"""What writers of samples share: a place on a local disk, or files with numbers in place of a ``*``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from aimcore import InvalidValue, Source
from aimcore.contracts.sample_writers import SampleWriter, Written
from aimcore.io.locations import is_local, local_path


class LocalWriter(SampleWriter):
    """Writes to one place on a local disk, or to files with numbers in place of a ``*``."""

    owner: ClassVar[str]
    """The source's class in messages."""
    is_numbered: ClassVar[bool] = False
    """Whether the place may have a ``*``, and is one file, written as one part, if it has none."""

    def __init__(self, url: str, source: Callable[..., Source]) -> None:
        """Write to ``url``, which ``source`` reads.

        Raises:
            InvalidValue: it is not local, or has a pattern that this writer does not take.
        """
        self._url, self._source = url, source
        self._path = destination(url, self.owner)
        if "*" in self._path.name and not self.is_numbered:
            raise InvalidValue(self.owner, [("url", f"must be one place, without *, got {url}")])

    @property
    def path(self) -> Path:
        """Where the result will be."""
        return self._path

    @property
    def is_divisible(self) -> bool:
        """Whether there may be several parts: not in one file."""
        return not self.is_numbered or "*" in self._path.name


def destination(url: str, owner: str) -> Path:
    """Return the local path of a destination, which may have one ``*`` in its last part.

    Raises:
        InvalidValue: it is not on a local disk, or has other patterns.
    """
    path = local_path(url) if is_local(url) else None  # a remote store is not even opened
    if path is None:
        message = f"must be on a local disk to be written, got {url}: write it there, and copy it"
    elif any(sign in str(path) for sign in "{}?[]") or "*" in str(path.parent) or path.name.count("*") > 1:
        message = f"may have one * in its last part, for the number of the file, and no other pattern; got {url}"
    else:
        return path
    raise InvalidValue(owner, [("url", message)])


def file_of_part(path: Path, part: int) -> str:
    """Return the name of the file of a part.

    >>> file_of_part(Path("out/train-*.tar"), 7)
    'train-00007.tar'
    """
    return path.name.replace("*", f"{part:05}")


def require_all_labelled(written: Written, owner: str) -> None:
    """Refuse samples of which only some have a label, where readers need all or none.

    Raises:
        InvalidValue: some have one.
    """
    if 0 < written.num_labelled < written.num_samples:
        message = (
            f"{written.num_samples - written.num_labelled} of {written.num_samples} samples have no label, which this "
            "layout cannot express: write a zarr group (*.zarr) or Parquet files (*.parquet)"
        )
        raise InvalidValue(owner, [("label", message)])
