"""Features kept in zarr arrays, so that a trunk reads the same images once.

Under the cache's URL each kind of features of each source has a zarr v3 group of its own, named by a hash of all that
the features depend on: the trunk's settings and weights, the source and its length, transform, order, attention,
layers, precision, and the versions that computed them. It does not depend on what stands in the source's files:
delete the cache when images change under the same name.

A group is written in chunks while images are read, and marked as complete at the very end. One that is incomplete,
damaged (every chunk has a checksum) or of something else is written anew.

Lower-case n is the number of samples.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from torch import Tensor

from aimcore.contracts.errors import AimcoreError, InvalidValue, LocationError
from aimcore.contracts.messages import shown
from aimcore.engine.distributed import any_rank, on_every_rank, on_first_rank, rank_and_world_size
from aimcore.evaluation.feature_keys import Description, key_of
from aimcore.evaluation.feature_tables import FeatureKind, Rows
from aimcore.evaluation.feature_writers import Sink, no_images
from aimcore.evaluation.stored_features import StoredTable
from aimcore.io.atomic_files import writing
from aimcore.io.locations import zarr_location

if TYPE_CHECKING:
    import zarr

CHUNK_BYTES = 8 * 2**20
"""Size of a chunk: small enough to hold dozens at a time, large enough for an object store."""
_COMPLETE = "complete"
_DESCRIPTION = "description"
_CHECKSUM_BYTES = 4
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What zarr raises at damaged descriptions and chunks, besides a folder in place of a file."""


class CacheNotShared(AimcoreError):
    """Processes do not see the same cache."""


class CacheNotReadable(AimcoreError):
    """The system refuses to read what is in the cache."""


class FeatureCache:
    """The groups of features under one URL, of any file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Find the file system; nothing is read or written yet.

        Args:
            url: a folder, e.g. ``/data/features``, ``s3://bucket/features``, or ``memory://features`` (this process).

        Raises:
            InvalidValue: the URL is refused, see :mod:`aimcore.io.locations`, or its protocol lacks a package.
        """
        self.url = url.rstrip("/")
        try:
            self._root = zarr_location(self.url)
        except LocationError as error:
            raise InvalidValue("probe", [("cache_url", str(error))]) from error

    def find(self, description: Description) -> StoredTable | None:
        """The features described, complete and undamaged; None where they must be computed.

        All processes get a table, or none does. The first one reads every chunk, so that damage is found before
        anything is trained on it; that takes about as long as one epoch of reading.

        Raises:
            CacheNotReadable: the system refuses to read (raised on every process).
        """
        table = on_every_rank(lambda: self._open(description, verify=rank_and_world_size()[0] == 0))
        return None if any_rank(table is None) else table

    def sink(self, description: Description, kind: FeatureKind, num_classes: int, only: Tensor | None) -> StoreSink:
        """Where the features described are to be written."""
        return StoreSink(self, description, kind, num_classes, only)

    def location(self, description: Description) -> Path | str:
        """Where the group of these features is."""
        name = f"{key_of(description)}.zarr"
        return self._root / name if isinstance(self._root, Path) else f"{self._root}/{name}"

    def _open(self, description: Description, *, verify: bool) -> StoredTable | None:
        import zarr  # here, because it takes a while to load

        where = self.location(description)
        try:
            group = zarr.open_group(where, mode="r")
            if group.attrs.get(_COMPLETE) is not True:
                logger.info("the features at {} were not finished: computing them again", where)
                return None
            table = stored_table(group, description)
            if verify:
                table.verify()
        except FileNotFoundError:
            return None
        except (*_DAMAGE, IsADirectoryError, NotADirectoryError) as error:
            told = f"{type(error).__name__}: {shown(str(error))}"
            logger.warning("the features at {} are damaged ({}): computing them again", where, told)
            return None
        except OSError as error:
            # They may be undamaged: nothing is written over them.
            raise CacheNotReadable(
                f"the features at {where} cannot be read ({error}): repair that, give another cache_url, or give none"
            ) from error
        return table

    def reopen(self, description: Description) -> StoredTable:
        """What was just written, on every process.

        Raises:
            CacheNotShared: some process does not find it.
        """
        table = on_every_rank(lambda: self._open(description, verify=False))
        missing = any_rank(table is None)
        if missing or table is None:
            raise CacheNotShared(
                f"features were written to {self.url}, but not every process finds them there: give a cache_url that "
                "all processes share, such as a network folder or an object store"
            )
        return table


class StoreSink(Sink[StoredTable]):
    """Writes features a chunk at a time; only the first process writes, with the rows of all."""

    def __init__(
        self, cache: FeatureCache, description: Description, kind: FeatureKind, num_classes: int, only: Tensor | None
    ) -> None:
        super().__init__(kind, num_classes, only)
        self._cache, self._description = cache, description
        self._writer: _Writer | None = None
        self._num_rows = 0
        on_first_rank(self._begin)

    def _begin(self) -> None:
        with self._writing():
            self._writer = _Writer(self._cache.location(self._description))

    def write(self, rows: Rows) -> None:
        """Append the rows of all processes' batches."""
        rows = rows.over_ranks()
        self._num_rows += len(rows.labels)
        on_first_rank(lambda: self._append(rows))

    def _append(self, rows: Rows) -> None:
        assert self._writer is not None
        with self._writing():
            self._writer.append(rows)

    def finish(self) -> StoredTable:
        """Write what is left, mark the group as complete, and open it on every process."""
        if not self._num_rows:
            raise no_images()
        on_first_rank(self._end)  # nobody opens it before it is complete
        return self._cache.reopen(self._description)

    def _end(self) -> None:
        assert self._writer is not None
        with self._writing():
            self._writer.close({_DESCRIPTION: dict(self._description), "num_classes": self.num_classes})

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._cache.location(self._description), "What was computed before is unchanged")


class _Writer:
    """A group that grows by whole chunks."""

    def __init__(self, where: Path | str) -> None:
        import zarr

        # Writing begins by removing what was there, the mark of completeness first of all.
        self._group = zarr.open_group(where, mode="w")
        self._array: zarr.Array[Any] | None = None
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._labels: list[Tensor] = []
        self._numbers: list[Tensor] = []

    def append(self, rows: Rows) -> None:
        """Write as many whole chunks as there are."""
        if not len(rows.labels):
            return
        self._labels.append(rows.labels)
        self._numbers.append(rows.numbers)
        self._waiting.append(rows.features.numpy())
        array = self._array = self._array or _new_array(self._group, "features", rows.features)
        if sum(map(len, self._waiting)) >= array.chunks[0]:
            waiting = np.concatenate(self._waiting)
            whole = len(waiting) - len(waiting) % array.chunks[0]
            array.append(waiting[:whole])
            self._waiting = [waiting[whole:]]

    def close(self, attributes: dict[str, Any]) -> None:
        """Write the rest, labels and numbers, and at the very end the mark."""
        assert self._array is not None  # a sink without rows does not get here
        self._array.append(np.concatenate(self._waiting))
        for name, parts in (("labels", self._labels), ("numbers", self._numbers)):
            _new_array(self._group, name, parts[0]).append(torch.cat(parts).numpy())
        self._group.attrs.update(attributes)
        self._group.attrs[_COMPLETE] = True


def _new_array(group: zarr.Group, name: str, like: Tensor) -> zarr.Array[Any]:
    """An array of rows like these, with none yet. Floats hardly compress, so they only get a checksum."""
    import zarr
    from zarr.codecs import Crc32cCodec

    shape, dtype = tuple(like.shape[1:]), like.numpy().dtype
    rows = max(1, CHUNK_BYTES // (like[0].numel() * like.element_size()))
    # Chunks of nothing but zeros are written too: a chunk that is not there is damage.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return group.create_array(
            name, shape=(0, *shape), chunks=(rows, *shape), dtype=dtype, compressors=[Crc32cCodec()]
        )


def stored_table(group: zarr.Group, description: Description) -> StoredTable:
    """The table that a complete group holds. Nothing is allocated for an array before its description is checked.

    Raises:
        ValueError, or another of _DAMAGE: it does not hold what it should.
    """
    if group.attrs[_DESCRIPTION] != description:
        raise ValueError("it describes other features")
    features = _array(group, "features", np.float32)
    labels, numbers = (_array(group, name, np.int64) for name in ("labels", "numbers"))
    if not (labels.ndim == numbers.ndim == 1 and features.shape[0] == labels.shape[0] == numbers.shape[0]):
        raise ValueError("its arrays are not equally long")
    num_classes = group.attrs["num_classes"]
    if type(num_classes) is not int or num_classes < 1:
        raise ValueError(f"it has {num_classes!r} classes")
    return StoredTable(features, _tensor(labels), _tensor(numbers), num_classes)


def _tensor(array: zarr.Array[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array[:]))


def _array(group: zarr.Group, name: str, dtype: npt.DTypeLike) -> zarr.Array[Any]:
    """An array of whole rows, as :func:`_new_array` makes them, of which every chunk exists."""
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec

    array = group[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} is not an array")
    codecs = (array.filters, array.serializer, array.compressors)
    if array.dtype != dtype or codecs != ((), BytesCodec(endian="little"), (Crc32cCodec(),)):
        raise ValueError(f"the numbers of {name} are stored in another way")
    if array.chunks[1:] != array.shape[1:]:
        raise ValueError(f"the chunks of {name} are not whole rows")
    # First, because a wrong shape may have more chunks than can be counted.
    described = array.nchunks * (prod(array.chunks) * array.dtype.itemsize + _CHECKSUM_BYTES)
    if described > array.nbytes_stored():
        raise ValueError(f"{name} should have {described} bytes, and has {array.nbytes_stored()}")
    if array.nchunks_initialized != array.nchunks:
        raise ValueError(f"{array.nchunks_initialized} of {array.nchunks} chunks of {name} exist")
    return array
