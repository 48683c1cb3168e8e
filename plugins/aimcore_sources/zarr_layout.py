"""The layout of images in a zarr v3 group, for writing and reading.

- ``samples``, uint8, one dimension: for each sample the bytes of its image ``[H, W, C]``, because crops are resized
  faster from channels next to each other, then a JSON object with its ``identifier`` and its ``captions`` by kind. A
  chunk has a few images, and a shard has many chunks: one image is read without its neighbours, and an object store
  needs few objects. Chunks are compressed only if that saves much, which it does not for photographs.
- ``ends``, int64 ``[n]``: where each sample ends; ``shapes``, int32 ``[n, 3]``: C, H, W of its image.
- ``checksums``, uint32 ``[n]``: CRC-32 of each sample's bytes.
- ``labels``, int64 ``[n]``, -1 for none.
- Attributes: ``format``, ``class_names``, ``left_out`` (counts by reason), ``digest`` (of all arrays but ``samples``,
  and of the names of classes), and ``complete``, which is written last.

zarr reads a lost chunk as zeros, and may itself skip a chunk of zeros when writing. In a group with a ``digest`` every
chunk was written, so one that is missing is an error. Groups of earlier versions have no ``digest``, or images
``[C, H, W]``: then their ``format`` is :data:`FORMAT_CHANNELS_FIRST`.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aimcore.io.locations import file_system, zarr_location

FORMAT = "aimcore images 2"
FORMAT_CHANNELS_FIRST = "aimcore images 1"
"""Format of earlier versions, with images ``[C, H, W]``. It is read, and not written."""
NO_LABEL = -1
MAX_LISTED = 100_000
"""Missing chunks of an array of more chunks are not counted: listing them would take minutes."""
DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, zlib.error,
)  # fmt: skip
"""Exceptions of zarr, its codecs and file systems for damaged or lost data or metadata."""
_METADATA = frozenset(("zarr.json", ".zarray", ".zattrs"))


class Rows(NamedTuple):
    """All arrays of a group except the images, in memory."""

    ends: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int32]
    checksums: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.int64]

    def digest(self, class_names: Sequence[str]) -> str:
        """Return the value of the attribute ``digest``."""
        digest = hashlib.blake2b(json.dumps(list(class_names)).encode(), digest_size=16)
        for array in self:
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def place_of(url: str) -> tuple[Any, str, Path | str]:
    """Return the file system of ``url``, its path there, and what zarr should open.

    Raises:
        LocationError: the URL is refused, see :mod:`aimcore.io.locations`, or its protocol lacks a package.
    """
    where = url.rstrip("/")
    return *file_system(where), zarr_location(where)


def state_of(attributes: Mapping[str, Any]) -> Literal["complete", "incomplete", "other"]:
    """Return the format in a group's attributes."""
    if attributes.get("format") not in (FORMAT, FORMAT_CHANNELS_FIRST):
        return "other"
    return "complete" if attributes.get("complete") is True else "incomplete"


def num_stored(array: Any) -> int:
    """Return the number of stored objects of a complete array: its shards, or its chunks if it has no shards."""
    return math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True))


def stored(url: str, name: str, array: Any) -> set[str] | None:
    """Return the keys of an array's stored chunks, or shards; None if they cannot be listed.

    They cannot be listed if they are more than :data:`MAX_LISTED`, if the group is an archive, or if the
    file system refuses to list it.
    """
    files, path, _ = place_of(url)
    folder = f"{path.rstrip('/')}/{name}"
    try:
        if num_stored(array) > MAX_LISTED or not files.isdir(folder):
            return None
        keys = {str(key).rpartition(f"{folder}/")[2] for key in files.find(folder)}
    except OSError:
        return None
    return keys - _METADATA
