"""How images lie in a zarr v3 group, for those who write and those who read it.

- ``samples``, uint8, one dimension: for each sample the bytes of its image ``[C, H, W]``, then a JSON object with its
  ``identifier`` and its ``captions`` by kind. Chunks hold a few images, and shards many chunks: one image is read
  without its neighbours, and an object store holds few objects.
- ``ends``, int64 ``[n]``: where each sample ends; ``shapes``, int32 ``[n, 3]``: C, H, W of its image.
- ``checksums``, uint32 ``[n]``: CRC-32 of each sample's bytes.
- ``labels``, int64 ``[n]``, -1 for none.
- Attributes: ``format``, ``class_names``, ``left_out`` (counts by reason), ``digest`` (of all arrays but ``samples``,
  and of the names of classes), and ``complete``, which is written last.

zarr reads a chunk that is lost as zeros, and may itself leave out a chunk of zeros. In a group with a ``digest`` every
chunk was written, so one that is missing is an error. Groups of earlier versions have no ``digest``.
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

FORMAT = "aimcore images 1"
NO_LABEL = -1
MAX_LISTED = 100_000
"""An array of more chunks than this is not listed to count the missing ones: that would take minutes."""
DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, zlib.error,
)  # fmt: skip
"""What zarr, its codecs and file systems raise for data or metadata that are damaged or lost."""
_METADATA = frozenset(("zarr.json", ".zarray", ".zattrs"))


class Rows(NamedTuple):
    """What a group holds besides images, in memory."""

    ends: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int32]
    checksums: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.int64]

    def digest(self, class_names: Sequence[str]) -> str:
        """What the attribute ``digest`` holds."""
        digest = hashlib.blake2b(json.dumps(list(class_names)).encode(), digest_size=16)
        for array in self:
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def place_of(url: str) -> tuple[Any, str, Path | str]:
    """The file system of ``url``, its path there, and what zarr should open.

    Raises:
        LocationError: the URL is refused, see :mod:`aimcore.io.locations`, or its protocol lacks a package.
    """
    where = url.rstrip("/")
    return *file_system(where), zarr_location(where)


def state_of(attributes: Mapping[str, Any]) -> Literal["complete", "incomplete", "other"]:
    """What a group's attributes say that it is."""
    if attributes.get("format") != FORMAT:
        return "other"
    return "complete" if attributes.get("complete") is True else "incomplete"


def num_stored(array: Any) -> int:
    """How many objects a store holds if no chunk of the array is missing: its shards, or its chunks if it has none."""
    return math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True))


def stored(url: str, name: str, array: Any) -> set[str] | None:
    """The keys of the chunks, or shards, that are stored of an array of the group; None if they cannot be listed.

    They cannot where they are more than :data:`MAX_LISTED`, where the group is no folder, but an archive, and where the
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
