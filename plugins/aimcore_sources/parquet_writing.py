"""Writing of Parquet files in Hugging Face's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aimcore import Source
from aimcore.contracts.sample_writers import Written, WrittenSample
from aimcore.io.atomic_files import replacing
from aimcore.io.parquet_library import require_pyarrow
from aimcore_sources.numbered_files import LocalWriter, file_of_part
from aimcore_sources.stored_images import image_file

_ROWS, _BYTES = 256, 2**26
"""A row group ends after so many rows, or bytes of images: few, because one image is read with all of them."""


class ParquetWriter(LocalWriter):
    """Columns ``image`` (struct of ``bytes`` and ``path``), ``label`` (null for none) and ``captions``.

    ``path`` is the name of the sample in its source. ``captions`` has lists of structs of ``kind`` and ``text``.
    """

    owner = "Parquet"
    is_numbered = True

    def __init__(self, url: str, source: Callable[..., Source]) -> None:
        """Write to ``url``, which ``source`` reads.

        Raises:
            InvalidValue: it is not local, or has other patterns than one ``*``.
            MissingPyarrow: pyarrow is not installed.
        """
        require_pyarrow()
        super().__init__(url, source)

    def write_part(
        self, folder: Path, part: int, samples: Iterable[WrittenSample], class_names: tuple[str, ...]
    ) -> None:
        """Write one file."""
        pyarrow = require_pyarrow()
        schema = _schema(pyarrow, class_names)
        how = {"compression": "none", "use_dictionary": False}  # image files cannot be compressed further
        with (
            replacing(folder / "out" / file_of_part(self._path, part)) as partial,
            pyarrow.parquet.ParquetWriter(partial, schema, **how) as writer,
        ):
            for rows in _groups(samples):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))

    def finish(self, folder: Path, written: Written) -> Source:
        """Return the source that reads the files."""
        captions = {kind: f"captions#{kind}" for kind in written.caption_kinds}
        return self._source(url=self._url, captions=captions)


def _groups(samples: Iterable[WrittenSample]) -> Iterable[list[dict[str, Any]]]:
    """Yield the rows of each row group."""
    rows, size = list[dict[str, Any]](), 0
    for one in samples:
        content, _ = image_file(one)
        captions = [{"kind": kind, "text": text} for kind, texts in one.sample.captions.items() for text in texts]
        image = {"bytes": content, "path": one.sample.identifier}
        rows.append({"image": image, "label": one.sample.label, "captions": captions})
        size += len(content)
        if len(rows) >= _ROWS or size >= _BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _schema(pyarrow: Any, class_names: tuple[str, ...]) -> Any:
    text, label = pyarrow.string(), {"_type": "Value", "dtype": "int64"}
    if class_names:
        label = {"_type": "ClassLabel", "names": list(class_names)}  # type: ignore[dict-item]
    caption = {"kind": {"_type": "Value", "dtype": "string"}, "text": {"_type": "Value", "dtype": "string"}}
    features = {"image": {"_type": "Image"}, "label": label, "captions": [caption]}
    return pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])),
            ("label", pyarrow.int64()),
            ("captions", pyarrow.list_(pyarrow.struct([("kind", text), ("text", text)]))),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
