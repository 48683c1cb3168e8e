"""Features of every image of a source in a zarr group, written part by part by any number of processes.

| array | shape | content |
|---|---|---|
| `features` | `[n, D]` or `[n, N, D]` | float32 or float16; NaN for unreadable images and after the last token |
| `labels` | `[n]` | int64; -1 without a label |
| `grids` | `[n, 2]` | rows and columns of the tokens; 0 for unreadable images |
| `readable` | `[n]` | whether the image could be read |
| `identifiers` | `[n]` | names of the images |

Row i is image i of the source. A part is one chunk of every array. Its chunk of `features` is written last, and
atomically: a part is stored if this chunk exists. The group is complete when its attribute says so.

Lower-case n is the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aimcore.contracts.errors import DataNotFound, LocationError
from aimcore.contracts.messages import shown
from aimcore.encoders.stored_embeddings import (
    NO_LABEL,
    EmbeddedRows,
    OtherEmbeddings,
    other_embeddings,
    spread_over,
)  # fmt: skip
from aimcore.io.atomic_files import PARTIAL, writing
from aimcore.io.locations import file_system, local_path, zarr_location

if TYPE_CHECKING:
    import zarr

FORMAT = "aimcore embeddings 1"
_FORMAT, _DESCRIPTION, _ABOUT, _COMPLETE = "format", "description", "about", "complete"
_CHECKSUM_BYTES = 4
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_LOOKS, _SECONDS_BETWEEN_LOOKS = 10, 0.1
_SAFE = "The parts that were stored before are unchanged, and the same command continues"


class EmbeddingStore:
    """The group at a URL."""

    def __init__(self, url: str, group: zarr.Group) -> None:
        self.url, self._group = url, group
        self._features = self._array("features")
        self.num_rows, self.shape = int(self._features.shape[0]), tuple(map(int, self._features.shape[1:]))
        self.rows_per_part = int(self._features.chunks[0])

    @classmethod
    def begin(
        cls,
        url: str,
        description: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        num_rows: int,
        shape: tuple[int, ...],
        dtype: str,
        rows_per_part: int,
    ) -> EmbeddingStore:
        """Open the group at ``url`` to write the features of ``description``, or create it.

        Several processes may do this at the same time: they write the same bytes.

        Args:
            url: a path or URL.
            description: everything that the features depend on, as plain values.
            about: further plain values for readers.
            num_rows: number of images.
            shape: shape of the features of an image.
            dtype: type of the features.
            rows_per_part: rows of a part.

        Raises:
            OtherEmbeddings: something else is there.
            CannotWrite: the system refused to write.
        """
        group = _opened_or_created(url, {_FORMAT: FORMAT, _DESCRIPTION: dict(description), _ABOUT: dict(about)})
        _require_same(url, group, description)
        with writing(url, _SAFE):
            _create_arrays(group, num_rows, shape, dtype, rows_per_part)
        return cls(url, group)

    @classmethod
    def open(cls, url: str) -> EmbeddingStore:
        """Open a complete group to read it.

        Raises:
            DataNotFound: the group is missing, incomplete or damaged.
        """
        group = _opened(url)
        if group is None:
            raise DataNotFound(f"{shown(url)} has no embeddings: give the output of `aimcore embed`")
        if group.attrs.get(_COMPLETE) is not True:
            raise DataNotFound(f"{shown(url)} is not complete: run the command that began it again")
        try:
            return cls(url, group)
        except _DAMAGE as cause:
            raise DataNotFound(f"{shown(url)} is damaged: {type(cause).__name__}: {cause}") from cause

    @property
    def width(self) -> int | None:
        """D, if an image has one vector; None if its tokens are stored."""
        return self.shape[0] if len(self.shape) == 1 else None

    @property
    def is_complete(self) -> bool:
        """Whether all parts were stored, and the group was finished."""
        return self._group.attrs.get(_COMPLETE) is True

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return -(-self.num_rows // self.rows_per_part)

    @property
    def description(self) -> Mapping[str, Any]:
        """What the features depend on."""
        return dict(self._group.attrs[_DESCRIPTION])  # type: ignore[arg-type]

    @property
    def about(self) -> Mapping[str, Any]:
        """Further plain values."""
        return dict(self._group.attrs[_ABOUT])  # type: ignore[arg-type]

    def rows_of(self, part: int) -> range:
        """Return the rows of a part."""
        return range(part * self.rows_per_part, min((part + 1) * self.rows_per_part, self.num_rows))

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not stored. A chunk of another size was cut off."""
        size = prod(self._features.chunks) * self._features.dtype.itemsize + _CHECKSUM_BYTES
        found = {key for key, number in _sizes(self.url, "features") if number == size}
        rest = "/0" * len(self.shape)
        return [part for part in range(self.num_parts) if f"c/{part}{rest}" not in found]

    def write(self, part: int, rows: EmbeddedRows) -> None:
        """Store a part, its features last.

        Raises:
            CannotWrite: the system refused.
        """
        where = self._slice(part)
        with writing(self.url, _SAFE):
            self._array("labels")[where] = rows.labels
            self._array("grids")[where] = rows.grids
            self._array("readable")[where] = rows.readable
            self._array("identifiers")[where] = np.array(list(rows.identifiers), dtype=object)
            self._features[where] = rows.features

    def finish(self) -> None:
        """Mark the group as complete; no part may be missing. Files that killed processes left are removed."""
        with writing(self.url, _SAFE):
            path = local_path(self.url)
            for leftover in () if path is None else path.rglob(f"*{PARTIAL}"):
                with suppress(OSError):
                    leftover.unlink()
            self._group.attrs[_COMPLETE] = True

    def some_names(self) -> Mapping[int, str]:
        """Return the names of at most 32 images by row, spread over the parts that are stored."""
        stored = sorted(set(range(self.num_parts)).difference(self.missing()))
        number = sum(len(self.rows_of(part)) for part in stored)
        places = [divmod(place, self.rows_per_part) for place in spread_over(number)]  # only the last part is shorter
        rows = [self.rows_of(stored[part])[place] for part, place in places]
        return {row: str(self._array("identifiers")[row]) for row in rows}

    def parts(self) -> Iterator[EmbeddedRows]:
        """Yield the rows of every part in order.

        Raises:
            DataNotFound: a part is damaged.
        """
        for part in range(self.num_parts):
            where = self._slice(part)
            try:
                yield EmbeddedRows(
                    features=np.asarray(self._features[where]),
                    labels=np.asarray(self._array("labels")[where]),
                    grids=np.asarray(self._array("grids")[where]),
                    readable=np.asarray(self._array("readable")[where]),
                    identifiers=[str(name) for name in self._array("identifiers")[where]],
                )
            except _DAMAGE as cause:
                raise DataNotFound(f"part {part} of {self.url} is damaged: {type(cause).__name__}: {cause}") from cause

    def unreadable(self) -> list[str]:
        """Return the names of the images that could not be read."""
        readable = np.asarray(self._array("readable")[:])
        return [str(self._array("identifiers")[int(row)]) for row in np.flatnonzero(~readable)]

    def _array(self, name: str) -> Any:
        import zarr

        # Chunks that hold one value are written too: a missing chunk is a missing part.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return self._group[name]

    def _slice(self, part: int) -> slice:
        rows = self.rows_of(part)
        return slice(rows.start, rows.stop)


def _opened(url: str) -> zarr.Group | None:
    """Return the group of embeddings at ``url``; None if nothing is there.

    Raises:
        OtherEmbeddings: another group is there.
        LocationError: the URL is refused.
    """
    import zarr  # here, because it takes a while to load

    try:
        group = zarr.open_group(zarr_location(url), mode="r+")
    except FileNotFoundError:
        return None
    except LocationError:
        raise
    except _DAMAGE as cause:
        raise OtherEmbeddings(
            f"{shown(url)} cannot be opened as a zarr group ({type(cause).__name__}: {cause}): choose another place"
        ) from cause
    if group.attrs.get(_FORMAT) != FORMAT:
        raise OtherEmbeddings(f"{shown(url)} is a zarr group with other content than embeddings: choose another place")
    return group


def _opened_or_created(url: str, attributes: dict[str, Any]) -> zarr.Group:
    """Return the group at ``url``; what else is there is never replaced."""
    group = _opened(url)
    if group is None and _is_free(url):
        return _created(url, attributes)
    for _ in range(_LOOKS):  # another process may have begun to create the group since the look above
        if group is not None:
            return group
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        group = _opened(url)
    raise OtherEmbeddings(f"{shown(url)} exists and holds no embeddings: choose another place")


def _is_free(url: str) -> bool:
    files, path = file_system(url)
    return not files.exists(path) or (files.isdir(path) and not files.ls(path))


def _created(url: str, attributes: dict[str, Any]) -> zarr.Group:
    import zarr

    with writing(url):
        return zarr.open_group(zarr_location(url), mode="a", attributes=attributes)


def _require_same(url: str, group: zarr.Group, description: Mapping[str, Any]) -> None:
    there: Any = group.attrs.get(_DESCRIPTION)
    if there != description:
        raise other_embeddings(url, there or {}, description)


def _create_arrays(group: zarr.Group, num_rows: int, shape: tuple[int, ...], dtype: str, rows: int) -> None:
    """Create the arrays that do not exist yet. Floats hardly compress, so they only get a checksum."""
    from zarr.codecs import Crc32cCodec

    numbers: dict[str, tuple[tuple[int, ...], str, Any]] = {
        "labels": ((), "int64", NO_LABEL),
        "grids": ((2,), "int32", 0),
        "readable": ((), "bool", False),
        "features": (shape, dtype, np.nan),
    }
    for name, (below, kind, fill) in numbers.items():
        _create(
            group, name, shape=(num_rows, *below), chunks=(rows, *below), dtype=kind, fill_value=fill,
            compressors=[Crc32cCodec()],
        )  # fmt: skip
    _create(group, "identifiers", shape=(num_rows,), chunks=(rows,), dtype=str)


def _create(group: zarr.Group, name: str, **settings: Any) -> None:
    from zarr.errors import ContainsArrayError

    if name not in group:
        # Another process may have created it in the meantime, with the same metadata.
        with suppress(ContainsArrayError, FileExistsError):
            group.create_array(name, **settings)


def _sizes(url: str, name: str) -> Iterator[tuple[str, int]]:
    """Yield the keys of the stored chunks of an array, with their sizes in bytes."""
    files, path = file_system(url)
    root = f"{path.rstrip('/')}/{name}"
    files.invalidate_cache(root)
    for key, info in files.find(root, detail=True).items():
        yield Path(key).as_posix().rpartition(f"/{name}/")[2], int(info["size"])
