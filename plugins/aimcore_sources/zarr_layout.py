"""How images lie in a zarr v3 group, for those who write and those who read it.

- ``samples``, uint8, one dimension: for each sample the bytes of its image ``[C, H, W]``, then a JSON object with its
  ``identifier`` and its ``captions`` by kind. Chunks hold a few images, and shards many chunks: one image is read
  without its neighbours, and an object store holds few objects.
- ``ends``, int64 ``[n]``: where each sample ends; ``shapes``, int32 ``[n, 3]``: C, H, W of its image.
- ``checksums``, uint32 ``[n]``: CRC-32 of each sample's bytes. (zarr gives zeros for a chunk that is lost.)
- ``labels``, int64 ``[n]``, -1 for none.
- Attributes: ``format``, ``class_names``, and ``complete``, which is written last.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aimcore.locations import file_system, zarr_location

FORMAT = "aimcore images 1"
NO_LABEL = -1


def place_of(url: str) -> tuple[Any, str, Path | str]:
    """The file system of ``url``, its path there, and what zarr should open.

    Raises:
        LocationError: the URL is refused, see :mod:`aimcore.locations`, or its protocol lacks a package.
    """
    where = url.rstrip("/")
    return *file_system(where), zarr_location(where)


def state_of(attributes: Mapping[str, Any]) -> Literal["complete", "incomplete", "other"]:
    """What a group's attributes say that it is."""
    if attributes.get("format") != FORMAT:
        return "other"
    return "complete" if attributes.get("complete") is True else "incomplete"
