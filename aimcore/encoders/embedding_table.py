"""Embeddings as a Parquet file, converted from a complete zarr group; requires the extra ``parquet``.

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
from collections.abc import Mapping
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown
from aimcore.encoders.embedding_store import NO_LABEL, EmbeddedRows, EmbeddingStore, OtherEmbeddings, other_embeddings
from aimcore.io.atomic_files import replacing, writing
from aimcore.io.locations import file_system, local_path, open_location

_KEY = b"aimcore"


class MissingPyarrow(AimcoreError):
    """The optional library pyarrow is needed, and cannot be imported."""


def is_table(out: str) -> bool:
    """Whether ``out`` names a Parquet file."""
    return PurePosixPath(out).suffix == ".parquet"


def require_pyarrow() -> Any:
    """Return the module ``pyarrow``.

    Raises:
        MissingPyarrow: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as cause:
        raise MissingPyarrow(
            f"Parquet files need the package pyarrow ({cause}): pip install 'aimcore[parquet]', or write to *.zarr"
        ) from cause


def stored_table(out: str, description: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the numbers of images and of unreadable ones in the Parquet file ``out``; None if there is no file.

    Raises:
        OtherEmbeddings: the file holds something else.
    """
    pyarrow, (files, path) = require_pyarrow(), file_system(out)
    if not files.exists(path):
        return None
    try:
        with open_location(out) as file:
            schema = pyarrow.parquet.read_schema(file)
        there = json.loads((schema.metadata or {})[_KEY])
    except (OSError, ValueError, LookupError, pyarrow.ArrowException) as cause:
        raise OtherEmbeddings(f"{shown(out)} exists and holds no embeddings: choose another place") from cause
    if there["description"] != description:
        raise other_embeddings(out, there["description"], description)
    return int(there["num_images"]), int(there["num_unreadable"])


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
