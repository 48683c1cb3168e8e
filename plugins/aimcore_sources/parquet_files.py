"""Row groups of Parquet files: found when the source is opened, read whole, and a few of them held in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aimcore import InvalidValue, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable
from aimcore.io.parquet_library import require_pyarrow
from aimcore.io.retries import StoreUnavailable, open_with_retries, with_retries
from aimcore_sources.decoding import connect
from aimcore_sources.listing import listing_of
from aimcore_sources.webdataset_shards import expand

LARGEST_GROUP = 2**31
"""Largest size of the images of a row group, in bytes: reading one image reads them all."""
_DAMAGE = (OSError, ValueError, LookupError, RuntimeError, TypeError, MemoryError)
"""Errors of pyarrow are among them: ``ArrowInvalid`` is a ``ValueError``, ``ArrowKeyError`` a ``KeyError``."""


def tables_of(url: str) -> tuple[str, ...]:
    """Return the files of a URL with ``{00000..00123}``, ``{a,b}`` and ``*``; of a folder, the ``*.parquet`` in it.

    Raises:
        DataNotFound: nothing is there.
    """
    files, path = connect(url, "Parquet")
    if any(sign in url for sign in "*{") or not with_retries(url, lambda: files.isdir(path)):
        return expand(url, "Parquet")
    names = listing_of(url, "Parquet").with_suffix((".parquet",))
    if not names:
        raise DataNotFound(f"Parquet: no *.parquet in {url}: check the path")
    return tuple(f"{url.rstrip('/')}/{name}" for name in names)


class _Group(NamedTuple):
    """A row group: the number of its file, and its own number there."""

    file: int
    number: int


class RowGroups:
    """The rows of all files, one after another, by number."""

    def __init__(self, files: Sequence[str], image: str, others: Collection[str], optional: Collection[str]) -> None:
        """Read the ends of ``files``.

        Args:
            files: their URLs.
            image: the column with the images.
            others: other columns.
            optional: those of the others that may be missing.

        Raises:
            DataNotFound: a file is missing, damaged or cut, or a row group is too large.
            InvalidValue: a column is missing.
        """
        self.files, self.num_held = tuple(files), 1
        self.metadata: Mapping[bytes, bytes] = {}
        self.columns: tuple[str, ...] = ()
        groups, sizes = list[_Group](), list[int]()
        for number, file in enumerate(files):
            with _opened(file) as table:
                schema, footer = table.schema_arrow, table.metadata
                columns = _columns(schema.names, file, image, others, optional)
                if number and columns != self.columns:
                    message = f"{file} lacks columns that {files[0]} has, or the reverse: give files of one kind"
                    raise InvalidValue("Parquet", [("url", message)])
                self.columns, self.metadata = columns, self.metadata or dict(schema.metadata or {})
                for place in range(footer.num_row_groups):
                    _require_small(footer.row_group(place), file, place, image)
                    groups.append(_Group(number, place))
                    sizes.append(footer.row_group(place).num_rows)
        self._groups = tuple(groups)
        self.sizes: npt.NDArray[np.int64] = np.array(sizes, dtype=np.int64)
        self.starts: npt.NDArray[np.int64] = np.cumsum(self.sizes) - self.sizes
        self._names = [file.rstrip("/").rpartition("/")[2] for file in self.files]
        if len(set(self._names)) < len(self._names):
            self._names = list(self.files)
        self._prepare()

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def column(self, name: str) -> list[Any]:
        """Return the values of a column in all rows.

        Raises:
            DataNotFound: a file is damaged.
        """
        found: list[Any] = []
        for file in self.files:
            with _opened(file) as table:
                try:
                    found += table.read(columns=[name]).column(name).to_pylist()
                except StoreUnavailable:
                    raise
                except _DAMAGE as cause:
                    raise _damaged(file, cause) from cause
        return found

    def row(self, index: int) -> tuple[Mapping[str, Any], str]:
        """Return the values of row ``index`` by column, and its name.

        Raises:
            UnreadableSample: its row group is damaged.
        """
        # Row groups without rows start where the next one does.
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        file, number = self._groups[place]
        row = index - int(self.starts[place])
        in_file = index - int(self.starts[self._first_of_file[file]])
        name = printable(f"{self._names[file]}#{in_file}")
        try:
            table = self._held(place, self.files[file], number)
            return {column: table.column(column)[row].as_py() for column in self.columns}, name
        except StoreUnavailable:
            raise
        except _DAMAGE as cause:
            raise UnreadableSample(name, f"{type(cause).__name__}: {cause}") from cause

    def _held(self, place: int, file: str, number: int) -> Any:
        """Return a row group, from memory if it is there. The least recently used one is dropped."""
        with self._lock:
            if place in self._tables:
                self._tables.move_to_end(place)
                return self._tables[place]
            while len(self._tables) >= self.num_held:
                self._tables.popitem(last=False)
            with _opened(file) as table:
                found = table.read_row_group(number, columns=list(self.columns))
            self._tables[place] = found
            return found

    def _prepare(self) -> None:
        self._tables: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._first_of_file: dict[int, int] = {}
        for place, group in enumerate(self._groups):
            self._first_of_file.setdefault(group.file, place)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without row groups in memory."""
        return {key: value for key, value in vars(self).items() if key not in ("_tables", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()


class _opened:  # noqa: N801  (it reads like a function)
    """A context with the Parquet file at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Any:
        pyarrow = require_pyarrow()
        try:
            self._file = open_with_retries(self._url)
            # Without buffers of its own, pyarrow reads only the columns that are wanted.
            return pyarrow.parquet.ParquetFile(self._file)
        except StoreUnavailable:
            raise
        except _DAMAGE as cause:
            raise _damaged(self._url, cause) from cause

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def _damaged(url: str, cause: BaseException) -> DataNotFound:
    return DataNotFound(
        f"Parquet: {url} cannot be read ({type(cause).__name__}: {cause}): if it exists, it is cut, damaged, or not a "
        "Parquet file; fetch it again"
    )


def _columns(
    names: Sequence[str], file: str, image: str, others: Collection[str], optional: Collection[str]
) -> tuple[str, ...]:
    wanted = dict.fromkeys([image, *others])
    missing = [name for name in wanted if name not in names and name not in optional]
    if missing:
        message = f"{file} has no column {missing[0]!r}; its columns are {', '.join(map(repr, names))}"
        raise InvalidValue("Parquet", [("image" if missing[0] == image else "captions or label", message)])
    return tuple(name for name in wanted if name in names)


def _require_small(group: Any, file: str, number: int, image: str) -> None:
    columns = [group.column(place) for place in range(group.num_columns)]
    size = sum(one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] == image)
    if size > LARGEST_GROUP:
        raise DataNotFound(
            f"Parquet: row group {number} of {file} has {size / 1e9:.1f} GB of images, and one image can only be read "
            f"with all of them; at most {LARGEST_GROUP / 1e9:.1f} GB are read: write the file with smaller row groups"
        )
