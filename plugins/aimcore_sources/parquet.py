"""Images in Parquet files, as Hugging Face's datasets store them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from aimcore import InvalidValue, OpenSource, Problem, Sample, Source, UnreadableSample, at_least, component
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable, shown
from aimcore.contracts.randomness import index_of, keyed_bits
from aimcore.contracts.sample_writers import SampleWriter
from aimcore.io.image_files import MAX_PIXELS, decode
from aimcore.io.locations import location_problems
from aimcore.io.parquet_library import require_pyarrow
from aimcore_sources.decoding import pixel_problems
from aimcore_sources.parquet_files import RowGroups, tables_of
from aimcore_sources.parquet_writing import ParquetWriter
from aimcore_sources.webdataset_shards import without_braces

_LABEL = "label"
_MOST_WINDOW = 4096


@component("parquet")
class Parquet(Source):
    """Rows of Parquet files with an image each: Hugging Face's struct of ``bytes`` and ``path``, or the bytes alone.

    Names of classes are those that Hugging Face's datasets store in the file (``ClassLabel``), unless ``class_names``
    is given; labels that are text become classes in sorted order. Requires the extra ``parquet``.

    A row can only be read with its whole row group. Training therefore mixes ``window`` row groups at a time: within an
    epoch, row groups come in a new order, and of each window all rows in a new order. Each process that reads holds the
    images of ``window`` + 1 row groups in memory. For orders without windows, convert the files to WebDataset's shards
    or a zarr group (``aimcore data convert``).
    """

    url: str
    """A file, a folder of files, or several by ``{00000..00123}``, ``{a,b}`` and ``*``; a path or URL. Give a pattern
    like ``data/train-*.parquet`` if a folder has several splits."""
    image: str = "image"
    """The column with the images."""
    label: str = _LABEL
    """The column with the labels: numbers or names. Files without the column ``label`` have no labels; another column
    must exist."""
    captions: Mapping[str, str] = attrs.field(factory=dict)
    """The column with the captions of each kind: text, or lists of text. ``{"alt": "captions#alt"}`` reads a column
    ``captions`` that has lists of structs of ``kind`` and ``text``."""
    class_names: tuple[str, ...] = ()
    """Names of the labels."""
    window: int = 4
    """Number of row groups whose rows training mixes."""
    max_pixels: int = MAX_PIXELS
    """An image with more pixels is unreadable: it is treated as a decompression bomb."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, empty names of columns, and numbers out of range."""
        yield from location_problems("url", next(without_braces(self.url)))
        yield from pixel_problems(self.max_pixels)
        yield from at_least("window", self.window, 1, _MOST_WINDOW)
        for name in ("image", "label"):
            if not getattr(self, name):
                yield Problem(name, "must name a column, got ''")
        for kind, column in self.captions.items():
            if not column.partition("#")[0]:
                yield Problem("captions", f"{kind!r} must name a column, got {column!r}")

    def open(self) -> OpenSource:
        """Read the ends of all files, and their labels.

        Raises:
            DataNotFound: a file is missing, damaged or cut, or none has a row; or a row group is too large.
            InvalidValue: a column is missing or of another type, or labels are not those of ``class_names``.
            MissingPyarrow: pyarrow is not installed.
        """
        require_pyarrow()
        captions = {column.partition("#")[0] for column in self.captions.values()}
        optional = {self.label} if self.label == _LABEL else set[str]()
        groups = RowGroups(tables_of(self.url), self.image, [*captions, self.label], optional)
        if not len(groups):
            raise DataNotFound(f"Parquet: {self.url} has no rows")
        labels_n, class_names = _labels(groups, self)
        return OpenParquet(self, groups, labels_n, class_names)

    def writer(self) -> SampleWriter:
        """Return a writer of Parquet files; ``url`` is a file, or has one ``*`` for the number of the file."""
        return ParquetWriter(self.url, Parquet)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the files are the user's."""
        return ()


def _labels(groups: RowGroups, config: Parquet) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """Return the labels of all rows, -1 for none, and the names of the classes."""
    if config.label not in groups.columns:
        return None, config.class_names
    given = groups.column(config.label)
    names = config.class_names or _named_in(groups.metadata, config.label)
    if any(isinstance(label, str) for label in given):
        names = names or tuple(sorted({label for label in given if isinstance(label, str)}))
        numbers = {name: number for number, name in enumerate(names)}
        given = [numbers.get(label, label) for label in given]
    wrong = next((label for label in given if label is not None and not _is_label(label, len(names))), None)
    if wrong is not None:
        known = f"one of {list(names[:10])}, or their numbers" if names else "numbers from 0 on, or text"
        message = f"the column {config.label!r} must have {known}, got {shown(str(wrong))}"
        raise InvalidValue("Parquet", [("label", message)])
    # Hugging Face's datasets write -1 for an unknown label.
    return np.array([-1 if label is None else label for label in given], dtype=np.int64), names


def _is_label(label: Any, number: int) -> bool:
    return type(label) is int and -1 <= label < (number or 2**63)


def _named_in(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...]:
    """Return the names of classes that Hugging Face's datasets store in the schema; empty if there are none."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (LookupError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


class OpenParquet(OpenSource):
    """Files whose ends have been read. It has no open file, so that it can be sent to data workers."""

    def __init__(
        self,
        config: Parquet,
        groups: RowGroups,
        labels_n: npt.NDArray[np.int64] | None,
        class_names: tuple[str, ...],
    ) -> None:
        self._config, self._groups, self._labels_n = config, groups, labels_n
        self.class_names = class_names
        self.left_out = {}
        groups.num_held = config.window + 1
        self._order = lru_cache(2)(self._order_of)

    def __len__(self) -> int:
        return len(self._groups)

    def read(self, index: int) -> Sample:
        """Return the image as RGB with its captions; see :meth:`read_with_file`."""
        return self.read_with_file(index)[0]

    def read_with_file(self, index: int) -> tuple[Sample, bytes]:
        """Return the sample, whose identifier is the name of the file and the number of the row, and its image file.

        Raises:
            UnreadableSample: the row group or the image is damaged, or the row has no image.
            StoreUnavailable: a remote store failed in every attempt.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, no number {index}")
        row, name = self._groups.row(index)
        content = _content(row[self._config.image], name)
        captions = {kind: _texts(row, column, name) for kind, column in self._config.captions.items()}
        sample = Sample(
            image=decode(content, name, self._config.max_pixels),
            identifier=name,
            captions={kind: texts for kind, texts in captions.items() if texts},
            label=self.label(index),
        )
        return sample, content

    def label(self, index: int) -> int | None:
        """Return the label, from memory."""
        label = -1 if self._labels_n is None else int(self._labels_n[index])
        return None if label < 0 else label

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        """Return all labels, from memory."""
        return None if self._labels_n is None else self._labels_n.copy()

    def indices_of(self, sample_numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        """Return a new order per epoch, in which neighbouring samples are of ``window`` row groups."""
        epochs, places = np.divmod(np.asarray(sample_numbers, dtype=np.int64), len(self))
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            groups, ends = self._order(int(epoch), seed)
            here = epochs == epoch
            positions, rows = _window_places(places[here], ends, self._config.window, seed, int(epoch))
            indices[here] = self._groups.starts[groups[positions]] + rows
        return indices

    def _order_of(self, epoch: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the row groups in the order of an epoch, and where each ends in the epoch."""
        bits = keyed_bits(seed, f"row groups of epoch {epoch}", np.arange(len(self._groups.sizes)))
        groups = np.argsort(bits, kind="stable")
        return groups, np.cumsum(self._groups.sizes[groups])

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the orders that were computed."""
        return {key: value for key, value in vars(self).items() if key != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._order = lru_cache(2)(self._order_of)


def _window_places(
    places: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], window: int, seed: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for places in an epoch the position of the row group in its order, and the row in the row group.

    Args:
        places: places in the epoch.
        ends: where each row group ends in the epoch.
        window: number of row groups that are mixed.
        seed: the run's seed.
        epoch: number of the epoch.
    """
    bounds = np.append(ends[window - 1 : -1 : window], ends[-1])
    windows = np.searchsorted(bounds, places, side="right")
    mixed = np.empty_like(places)
    for number in np.unique(windows):
        start = int(bounds[number - 1]) if number else 0
        here = windows == number
        own_seed = int(keyed_bits(seed, f"rows of epoch {epoch}", number))
        mixed[here] = start + index_of(places[here] - start, int(bounds[number]) - start, own_seed)
    position = np.searchsorted(ends, mixed, side="right")
    return position, mixed - np.where(position > 0, ends[position - 1], 0)


def _content(value: Any, name: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    path = value.get("path") if isinstance(value, dict) else None
    hint = f", only the path {shown(str(path))}: store the bytes in the file" if path else ""
    raise UnreadableSample(name, f"it has no image{hint}")


def _texts(row: Mapping[str, Any], written: str, name: str) -> tuple[str, ...]:
    """Return the captions of a column; none if the row has none."""
    column, _, kind = written.partition("#")
    value = row[column]
    values = value if isinstance(value, list) else [] if value is None else [value]
    if kind:
        values = [one.get("text") for one in values if isinstance(one, dict) and one.get("kind") == kind]
    if not all(isinstance(one, str) for one in values):
        raise UnreadableSample(name, f"{printable(written)!r} must contain text, got {shown(str(value))}")
    return tuple(one for one in values if one.strip())
