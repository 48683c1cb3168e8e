"""What lies where in one tar shard: scanned once, kept in a small file, and looked up there and not in memory.

A sample is what shares a key. Its kind is the extensions that it has, in order: shards have a handful of kinds.
Shape suffixes: n samples, m members, b bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aimcore.errors import DataNotFound
from aimcore.files import CannotWrite, make_folder, write_atomically
from aimcore_sources.decoding import connect, printable
from aimcore_sources.webdataset_shards import ShardError, members_of

_FORMAT = 2

Place = tuple[int, int]
"""Where a member begins in its shard, and its size, in bytes."""


@attrs.frozen(eq=False)
class ShardIndex:
    """The samples of a shard, in the order of their first members."""

    kinds: tuple[tuple[str, ...], ...]
    """Extensions, in lower case, of each kind of sample."""
    counts: tuple[int, ...]
    """Samples of each kind."""
    digest: int
    """Tells this index from those of other shards, and of the same one when it held something else; 64 bits."""
    is_kept: bool
    """Whether it lies in a file, of which only what is looked up is read."""
    _arrays: Mapping[str, Any]
    """``samples_n3``: kind, first member, first byte of the key, with one row more as the end; ``places_m2``;
    ``keys_b``. They are NumPy's, or slices of a file that give NumPy's."""

    def key(self, sample: int) -> str:
        """What the names of the sample's members begin with."""
        (start, end) = self._arrays["samples_n3"][sample : sample + 2][:, 2].tolist()
        return bytes(self._arrays["keys_b"][start:end]).decode(errors="surrogatepass")

    def members(self, sample: int) -> dict[str, Place]:
        """The sample's members by extension, in their order."""
        kind, first, _ = self._arrays["samples_n3"][sample : sample + 1][0].tolist()
        extensions = self.kinds[kind]
        places = self._arrays["places_m2"][first : first + len(extensions)].tolist()
        return {extension: (offset, size) for extension, (offset, size) in zip(extensions, places, strict=True)}

    def count_with(self, extensions: Iterable[str]) -> int:
        """How many samples have one of ``extensions``."""
        wanted = set(extensions)
        return sum(count for kind, count in zip(self.kinds, self.counts, strict=True) if wanted & set(kind))

    def samples_with(self, extensions: Iterable[str]) -> npt.NDArray[np.int64] | None:
        """Which samples have one of ``extensions``; None if all have."""
        wanted = set(extensions)
        kinds = [number for number, kind in enumerate(self.kinds) if wanted & set(kind)]
        if len(kinds) == len(self.kinds):
            return None
        return np.flatnonzero(np.isin(self._arrays["samples_n3"][: sum(self.counts)][:, 0], kinds))


def index_of(shard: str, cache_folder: str | None) -> ShardIndex:
    """The index of ``shard``.

    It is written to ``cache_folder``, or beside a shard on a local disk, and used again while the shard's size and
    time of change stay what they were. Where it cannot be written, the shard is scanned each time, and its index held
    in memory.

    Raises:
        DataNotFound: there is no such shard.
        ShardError: it is no tar file, or damaged, or holds a member twice.
    """
    filesystem, path = connect(shard, "WebDataset")
    try:
        state = _state(filesystem.info(path))
    except (OSError, ValueError) as cause:
        raise DataNotFound(f"WebDataset: cannot open the shard {shard}: {type(cause).__name__}: {cause}") from cause
    cache = _cache_path(shard, filesystem, path, cache_folder)
    known = None if cache is None else _kept(cache)
    if known is not None and known[0] == state:
        return known[1]
    head, arrays = _scanned(shard, state)
    written = _kept(cache) if cache is not None and _keep(cache, head, arrays) else None
    return written[1] if written is not None else _index(head, arrays, is_kept=False)[1]


def kept_index_of(shard: str, cache_folder: str | None, digest: int) -> ShardIndex:
    """The index of ``shard`` that was found before, whose digest is known.

    Raises:
        DataNotFound: index and shard are gone.
        ShardError: the index is gone or another one, and so is the shard.
    """
    filesystem, path = connect(shard, "WebDataset")
    cache = _cache_path(shard, filesystem, path, cache_folder)
    known = None if cache is None else _kept(cache)
    found = known[1] if known is not None and known[1].digest == digest else index_of(shard, cache_folder)
    if found.digest != digest:
        raise ShardError(f"{shard} is another one than when it was scanned: start the run anew")
    return found


def _scanned(shard: str, state: list[str]) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """Head and arrays of the index."""
    samples: dict[str, dict[str, Place]] = {}
    for member in members_of(shard):
        key, extension = _split(member.name)
        if not extension:
            continue
        parts = samples.setdefault(key, {})
        if extension in parts:
            raise ShardError(f"{shard} holds {printable(member.name)!r} twice: write it again with unique names")
        parts[extension] = (member.offset, member.size)
    arrays, kinds = _packed(samples)
    counts = np.bincount(arrays["samples_n3"][:-1, 0], minlength=len(kinds)).tolist()
    digest = hashlib.blake2b(json.dumps(kinds).encode(), digest_size=8)
    for array in arrays.values():
        digest.update(array.tobytes())
    head = {"format": _FORMAT, "shard": state, "kinds": kinds, "counts": counts, "digest": digest.hexdigest()}
    return json.dumps(head), arrays


def _packed(samples: Mapping[str, Mapping[str, Place]]) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[str, ...]]]:
    """The arrays, and the kinds by number."""
    kinds: dict[tuple[str, ...], int] = {}
    keys = [key.encode(errors="surrogatepass") for key in samples]
    rows = [[kinds.setdefault(tuple(parts), len(kinds)), len(parts)] for parts in samples.values()]
    samples_n3 = np.zeros((len(keys) + 1, 3), dtype=np.uint32)
    samples_n3[:-1, 0] = [kind for kind, _ in rows]
    samples_n3[1:, 1] = np.cumsum([count for _, count in rows], dtype=np.int64)
    samples_n3[1:, 2] = np.cumsum([len(key) for key in keys], dtype=np.int64)
    places = [place for parts in samples.values() for place in parts.values()]
    arrays: dict[str, npt.NDArray[Any]] = {
        "samples_n3": samples_n3,
        "places_m2": np.array(places, dtype=np.int64).reshape(-1, 2),
        "keys_b": np.frombuffer(b"".join(keys), dtype=np.uint8),
    }
    return arrays, list(kinds)


def _split(name: str) -> tuple[str, str]:
    """Key and extension: ``a/b.seg.png`` is the member ``seg.png`` of the sample ``a/b``. Hidden files have neither."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem else ("", "")


def _state(info: dict[str, Any]) -> list[str]:
    """What changes when a shard does: size and, where the file system tells it, time of change or version."""
    told = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag"))
    return [str(info.get("size")), next((str(value) for value in told if value is not None), "")]


def _cache_path(shard: str, filesystem: Any, path: str, cache_folder: str | None) -> Path | None:
    if cache_folder is not None:
        name = hashlib.blake2b(shard.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return Path(cache_folder).expanduser() / f"{Path(path).name}.{name}.index.safetensors"
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
    return Path(f"{path}.index.safetensors") if "file" in protocols else None


def _kept(cache: Path) -> tuple[list[str], ShardIndex] | None:
    """The shard's state and the index in a file; None if it is not there, damaged, or of another format."""
    try:
        file: Any = safe_open(cache, framework="np")
        arrays = {name: file.get_slice(name) for name in ("samples_n3", "places_m2", "keys_b")}
        state, index = _index(file.metadata()["index"], arrays, is_kept=True)
        fits = arrays["samples_n3"].get_shape() == [sum(index.counts) + 1, 3]
        return (state, index) if fits else None
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return None


def _index(head: str, arrays: Mapping[str, Any], *, is_kept: bool) -> tuple[list[str], ShardIndex]:
    content = json.loads(head)
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']}")
    kinds, counts = tuple(map(tuple, content["kinds"])), tuple(map(int, content["counts"]))
    return content["shard"], ShardIndex(kinds, counts, int(content["digest"], 16), is_kept, arrays)


def _keep(cache: Path, head: str, arrays: dict[str, npt.NDArray[Any]]) -> bool:
    """Write the index at once or not at all: several processes may do so at the same time."""
    # A folder that cannot be written costs time and memory only.
    with suppress(CannotWrite):
        make_folder(cache.parent)
        write_atomically(cache, save(arrays, {"index": head}))
        return True
    return False
