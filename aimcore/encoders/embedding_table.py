"""Embeddings as a Parquet file, written from a complete zarr group; requires the extra ``parquet``.

| column | type | content |
|---|---|---|
| `identifier` | string | the name of the image |
| `label` | int64 | null without a label |
| `rows`, `columns` | int32 | the grid of the tokens |
| `features` | list of numbers | `D`, or for tokens `rows * columns * D`; null for unreadable images |

Row i is image i of the source, and each part of the group is a row group. The metadata of the schema hold the
description of the features as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import attrs
import numpy as np

from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import shown
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.encoders.stored_embeddings import (
    NO_LABEL,
    EmbeddedRows,
    OtherEmbeddings,
    StoredEmbeddings,
    other_embeddings,
    spread_over,
)  # fmt: skip
from aimcore.io.atomic_files import replacing, writing
from aimcore.io.locations import file_system, local_path, open_location
from aimcore.io.parquet_library import require_pyarrow

_KEY = b"aimcore"
PARTIAL_GROUP = ".partial.zarr"
"""What follows the name of a Parquet file in that of the group which is written first."""
_DAMAGE = (OSError, ValueError, LookupError, RuntimeError, TypeError)
"""Errors of pyarrow are among them: ``ArrowInvalid`` is a ``ValueError``, ``ArrowKeyError`` a ``KeyError``."""


def is_table(out: str) -> bool:
    """Whether ``out`` names a Parquet file."""
    return PurePosixPath(out).suffix == ".parquet"


def open_embeddings(url: str) -> StoredEmbeddings:
    """Open what ``aimcore embed`` has written, a zarr group or a Parquet file, to read it.

    Raises:
        DataNotFound: nothing is there, or it is incomplete or damaged.
        OtherEmbeddings: something else is there.
        MissingPyarrow: it is a Parquet file, and pyarrow is not installed.
    """
    if not is_table(url):
        return EmbeddingStore.open(url)
    table = opened_table(url)
    if table is None:
        files, group = file_system(f"{url}{PARTIAL_GROUP}")
        hint = "is not complete: run the command that began it again" if files.exists(group) else (
            "has no embeddings: give the output of `aimcore embed`"
        )  # fmt: skip
        raise DataNotFound(f"{shown(url)} {hint}")
    return table


def opened_table(url: str) -> EmbeddingTable | None:
    """Return the embeddings in the Parquet file ``url``; None if there is no file.

    Raises:
        OtherEmbeddings: the file holds something else.
    """
    pyarrow, (files, path) = require_pyarrow(), file_system(url)
    if not files.exists(path):
        return None
    try:
        with open_location(url) as file:
            schema = pyarrow.parquet.read_schema(file)
        return EmbeddingTable(url, json.loads((schema.metadata or {})[_KEY]))
    except _DAMAGE as cause:
        raise OtherEmbeddings(f"{shown(url)} exists and holds no embeddings: choose another place") from cause


@attrs.define(eq=False, slots=False)
class EmbeddingTable:
    """The embeddings in a Parquet file, a :class:`StoredEmbeddings`."""

    url: str
    _stated: Mapping[str, Any]
    """The JSON in the metadata of the schema."""

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return int(self._stated["num_images"])

    @property
    def num_unreadable(self) -> int:
        """Number of images that could not be read."""
        return int(self._stated["num_unreadable"])

    @property
    def width(self) -> int | None:
        """D, if an image has one vector; None if its tokens are stored."""
        return None if self.description["reads"] == "tokens" else int(self._stated["width"])

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """What the features depend on."""
        return dict(self._stated["description"])

    @property
    def about(self) -> Mapping[str, Any]:
        """Further plain values."""
        return dict(self._stated["about"])

    def require_same(self, description: Mapping[str, Any]) -> None:
        """Refuse features of another description.

        Raises:
            OtherEmbeddings: they differ.
        """
        if self.description != description:
            raise other_embeddings(self.url, self.description, description)

    def some_names(self) -> Mapping[int, str]:
        """Return the names of at most 32 images by row, spread over all rows.

        Raises:
            DataNotFound: a row group is damaged.
        """
        pyarrow, wanted, first = require_pyarrow(), spread_over(self.num_rows), 0
        names: dict[int, str] = {}
        try:
            with open_location(self.url) as file, pyarrow.parquet.ParquetFile(file) as table:
                for number in range(table.num_row_groups):
                    rows = range(first, first + table.metadata.row_group(number).num_rows)
                    if here := [row for row in wanted if row in rows]:
                        found = table.read_row_group(number, columns=["identifier"])["identifier"].to_pylist()
                        names |= {row: str(found[row - first]) for row in here}
                    first = rows.stop
        except _DAMAGE as cause:
            raise DataNotFound(f"{shown(self.url)} is damaged: {type(cause).__name__}: {cause}") from cause
        return names

    def parts(self) -> Iterator[EmbeddedRows]:
        """Yield the rows of every row group in order; memory holds one.

        Raises:
            DataNotFound: a row group is damaged.
        """
        assert self.width is not None, "tokens of images have different numbers"
        pyarrow = require_pyarrow()
        try:
            with open_location(self.url) as file, pyarrow.parquet.ParquetFile(file) as table:
                for number in range(table.num_row_groups):
                    yield _rows_of(table.read_row_group(number), self.width)
        except _DAMAGE as cause:
            raise DataNotFound(f"{shown(self.url)} is damaged: {type(cause).__name__}: {cause}") from cause


def _rows_of(group: Any, width: int) -> EmbeddedRows:
    """Return a row group; features that are null become NaN."""
    lists = group["features"].combine_chunks()
    numbers = lists.flatten().to_numpy(zero_copy_only=False)
    readable = np.asarray(lists.is_valid())
    features = np.full((len(readable), width), np.nan, dtype=numbers.dtype)
    features[readable] = numbers.reshape(-1, width)
    grids = [group[name].to_numpy() for name in ("rows", "columns")]
    labels = group["label"].fill_null(NO_LABEL).to_numpy()
    return EmbeddedRows(
        features, labels, np.stack(grids, axis=1).astype(np.int32), readable, group["identifier"].to_pylist()
    )


def write_table(store: EmbeddingStore, out: str) -> None:
    """Write the Parquet file ``out`` from a complete group, and remove the group. Memory holds one part.

    Raises:
        CannotWrite: the system refused to write.
    """
    path = local_path(out)
    if path is None:
        with writing(out), open_location(out, "wb") as file:
            _write(store, file)
    else:
        with replacing(path) as partial:
            _write(store, str(partial))
    files, group = file_system(store.url)
    files.rm(group, recursive=True)


def _write(store: EmbeddingStore, where: Any) -> None:
    pyarrow = require_pyarrow()
    schema = _schema(store)
    with pyarrow.parquet.ParquetWriter(where, schema, compression="zstd") as writer:
        for rows in store.parts():
            writer.write_table(pyarrow.table(_columns(rows, len(store.shape)), schema=schema))


def _schema(store: EmbeddingStore) -> Any:
    pyarrow = require_pyarrow()
    numbers = pyarrow.from_numpy_dtype(np.dtype(store.description["dtype"]))
    about = {
        "description": dict(store.description),
        "about": dict(store.about),
        "num_images": store.num_rows,
        "num_unreadable": len(store.unreadable()),
        "width": store.shape[-1],
    }
    fields = [
        ("identifier", pyarrow.string()), ("label", pyarrow.int64()), ("rows", pyarrow.int32()),
        ("columns", pyarrow.int32()), ("features", pyarrow.list_(numbers)),
    ]  # fmt: skip
    return pyarrow.schema(fields, metadata={_KEY: json.dumps(about)})


def _columns(rows: EmbeddedRows, num_axes: int) -> dict[str, Any]:
    numbers = [int(count) if num_axes > 1 else 1 for count in rows.grids.prod(axis=1)]
    features = [
        one[:count].reshape(-1) if num_axes > 1 else one for one, count in zip(rows.features, numbers, strict=True)
    ]
    return {
        "identifier": list(rows.identifiers),
        "label": [None if label == NO_LABEL else int(label) for label in rows.labels],
        "rows": rows.grids[:, 0],
        "columns": rows.grids[:, 1],
        "features": [one if ok else None for one, ok in zip(features, rows.readable, strict=True)],
    }
