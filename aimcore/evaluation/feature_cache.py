"""A cache of features in zarr arrays, so that a trunk reads the same images only once.

Below the cache's URL each kind of features of each source has its own zarr v3 group. Its name is a hash of everything
that the features depend on: the trunk's settings and weights, the source and its length, transform, order, attention,
layers, precision, and the versions that computed them. The hash does not include the content of the source's files:
delete the cache when images change under the same name.

A group is written in chunks while images are read, and marked as complete at the end. A group that is incomplete,
damaged (every chunk has a checksum) or describes other features is written again. An incomplete group is not continued:
its labels and the numbers of its images are written last, and another number of processes or another batch size would
give the remaining rows another order.

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
from aimcore.evaluation.feature_writers import FeatureWriter, no_images
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
"""Errors that zarr raises for damaged metadata and chunks, except a folder in place of a file."""


class CacheNotShared(AimcoreError):
    """Not every process finds what another process wrote to the cache."""


class CacheNotReadable(AimcoreError):
    """The system refuses to read the cache."""


class FeatureCache:
    """The groups of features below one URL, on any file system of fsspec."""

    def __init__(self, url: str) -> None:
        """Look up the file system. Nothing is read or written yet.

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
        """Return the described features if they are complete and undamaged; None if they must be computed.

        Either all processes get a table, or none. The first process reads every chunk, so that damage is found before
        a probe is trained on it; this takes about as long as one epoch of reading.

        Raises:
            CacheNotReadable: the system refuses to read (raised on every process).
        """
        table = on_every_rank(lambda: self._open(description, verify=rank_and_world_size()[0] == 0))
        return None if any_rank(table is None) else table

    def writer(self, description: Description, kind: FeatureKind, num_classes: int, only: Tensor | None) -> StoreWriter:
        """Return the writer of the described features."""
        return StoreWriter(self, description, kind, num_classes, only)

    def location(self, description: Description) -> Path | str:
        """Return the path or URL of the group of these features."""
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
            damage = f"{type(error).__name__}: {shown(str(error))}"
            logger.warning("the features at {} are damaged ({}): computing them again", where, damage)
            return None
        except OSError as error:
            # The features may be undamaged, so they are not overwritten.
            raise CacheNotReadable(
                f"the features at {where} cannot be read ({error}): repair that, give another cache_url, or give none"
            ) from error
        return table

    def reopen(self, description: Description) -> StoredTable:
        """Open the features that were just written, on every process.

        Raises:
            CacheNotShared: some process does not find them.
        """
        table = on_every_rank(lambda: self._open(description, verify=False))
        missing = any_rank(table is None)
        if missing or table is None:
            raise CacheNotShared(
                f"features were written to {self.url}, but not every process finds them there: give a cache_url that "
                "all processes share, such as a network folder or an object store"
            )
        return table


class StoreWriter(FeatureWriter[StoredTable]):
    """Writes features one chunk at a time; the first process writes the rows of all processes."""

    def __init__(
        self, cache: FeatureCache, description: Description, kind: FeatureKind, num_classes: int, only: Tensor | None
    ) -> None:
        super().__init__(kind, num_classes, only)
        self._cache, self._description = cache, description
        self._writer: _GroupWriter | None = None
        self._num_rows = 0
        on_first_rank(self._begin)

    def _begin(self) -> None:
        with self._writing():
            self._writer = _GroupWriter(self._cache.location(self._description))

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
        """Write the remaining rows, mark the group as complete, and open it on every process."""
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


class _GroupWriter:
    """A group that grows by whole chunks."""

    def __init__(self, where: Path | str) -> None:
        import zarr

        # Opening removes an old group, beginning with its mark of completeness.
        self._group = zarr.open_group(where, mode="w")
        self._array: zarr.Array[Any] | None = None
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._labels: list[Tensor] = []
        self._numbers: list[Tensor] = []

    def append(self, rows: Rows) -> None:
        """Write all whole chunks; keep the remaining rows in memory."""
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
            self._waiting = [waiting[whole:].copy()]  # a view would keep all that was waiting in memory

    def close(self, attributes: dict[str, Any]) -> None:
        """Write the remaining rows, labels and numbers, and at the end the mark of completeness."""
        assert self._array is not None  # a writer without rows does not get here
        self._array.append(np.concatenate(self._waiting))
        for name, parts in (("labels", self._labels), ("numbers", self._numbers)):
            values = torch.cat(parts)
            # A chunk is stored whole: one of the usual size would hold a million numbers.
            _new_array(self._group, name, values, most_rows=len(values)).append(values.numpy())
        self._group.attrs.update(attributes)
        self._group.attrs[_COMPLETE] = True


def _new_array(group: zarr.Group, name: str, like: Tensor, most_rows: int | None = None) -> zarr.Array[Any]:
    """Create an empty array for rows like these. Floats hardly compress, so they only get a checksum."""
    import zarr
    from zarr.codecs import Crc32cCodec

    shape, dtype = tuple(like.shape[1:]), like.numpy().dtype
    rows = max(1, CHUNK_BYTES // (like[0].numel() * like.element_size()))
    rows = rows if most_rows is None else min(rows, most_rows)
    # Chunks that contain only zeros are written too: a missing chunk is damage.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return group.create_array(
            name, shape=(0, *shape), chunks=(rows, *shape), dtype=dtype, compressors=[Crc32cCodec()]
        )


def stored_table(group: zarr.Group, description: Description) -> StoredTable:
    """Return the table of a complete group. The metadata of an array are checked before memory is allocated for it.

    Raises:
        ValueError, or another error of _DAMAGE: the content is not as described.
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
    return StoredTable((features,), _tensor(labels), _tensor(numbers), num_classes)


def _tensor(array: zarr.Array[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array[:]))


def _array(group: zarr.Group, name: str, dtype: npt.DTypeLike) -> zarr.Array[Any]:
    """Return an array of whole rows, as :func:`_new_array` creates them, and require that every chunk exists."""
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
    # This check comes first, because a wrong shape may have more chunks than can be counted.
    described = array.nchunks * (prod(array.chunks) * array.dtype.itemsize + _CHECKSUM_BYTES)
    if described > array.nbytes_stored():
        raise ValueError(f"{name} should have {described} bytes, and has {array.nbytes_stored()}")
    if array.nchunks_initialized != array.nchunks:
        raise ValueError(f"{array.nchunks_initialized} of {array.nchunks} chunks of {name} exist")
    return array
