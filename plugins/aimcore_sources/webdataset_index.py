"""The index of a tar shard: scanned once, stored in a small file, and read there instead of in memory.

Members that share a key form a sample. Its kind is the list of its extensions, in order: shards have few kinds.
Shape suffixes: n samples, m members, b bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from loguru import logger
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable
from aimcore.io.atomic_files import CannotWrite, make_folder, write_atomically
from aimcore.io.retries import StoreUnavailable, with_retries
from aimcore_sources.decoding import connect
from aimcore_sources.left_out import with_ending
from aimcore_sources.webdataset_tar import ShardError, members_of

_FORMAT = 3

_PART = 2**16
"""Number of rows of an array that are read at once where the whole array is read."""
_DOTTED = "members with a dot in their key (in photo.1.jpg the key is photo)"

_ARRAYS = ("samples_n3", "places_m2", "keys_b")

Place = tuple[int, int]
"""First byte of a member in its shard, and its size, in bytes."""


@attrs.frozen(eq=False)
class ShardIndex:
    """The samples of a shard, in the order of their first members."""

    kinds: tuple[tuple[str, ...], ...]
    """Extensions, in lower case, of each kind of sample."""
    counts: tuple[int, ...]
    """Samples of each kind."""
    digest: int
    """Distinguishes this index from those of other shards, and of an earlier content of the same shard; 64 bits."""
    is_kept: bool
    """Whether it is in a file, of which only the needed parts are read."""
    ignored: Mapping[str, int]
    """Numbers of entries of the shard that belong to no sample, by reason."""
    _arrays: Mapping[str, Any]
    """``samples_n3``: kind, first member, first byte of the key, with one more row as the end; ``places_m2``;
    ``keys_b``. They are NumPy arrays, or slices of a file that return them."""

    def key(self, sample: int) -> str:
        """Return the key of a sample: the common prefix of its members' names."""
        (start, end) = self._arrays["samples_n3"][sample : sample + 2][:, 2].tolist()
        return bytes(self._arrays["keys_b"][start:end]).decode(errors="surrogatepass")

    def members(self, sample: int) -> dict[str, Place]:
        """Return the members of a sample by extension, in their order."""
        kind, first, _ = self._arrays["samples_n3"][sample : sample + 1][0].tolist()
        extensions = self.kinds[kind]
        places = self._arrays["places_m2"][first : first + len(extensions)].tolist()
        return {extension: (offset, size) for extension, (offset, size) in zip(extensions, places, strict=True)}

    def count_with(self, extensions: Iterable[str]) -> int:
        """Count the samples that have one of ``extensions``."""
        wanted = set(extensions)
        return sum(count for kind, count in zip(self.kinds, self.counts, strict=True) if wanted & set(kind))

    def left_out(self, images: Collection[str], others: Collection[str]) -> Counter[str]:
        """Count unused entries and images, if the first of the extensions ``images`` and all ``others`` are read."""
        found = Counter(self.ignored)
        for kind, count in zip(self.kinds, self.counts, strict=True):
            num_images = len(set(kind) & set(images))
            if not num_images:
                found["samples without an image"] += count
            elif num_images > 1:
                found["further images of a sample"] += count * (num_images - 1)
            for extension in set(kind).difference(images, others):
                _, dot, ending = extension.rpartition(".")
                has_dotted_key = bool(dot) and ending in {*images, *others}
                found[_DOTTED if has_dotted_key else with_ending("members of other kinds", ending)] += count
        return found

    def is_whole(self) -> bool:
        """Return whether the arrays are the written ones: all of them are read once, in parts."""
        return _digest(self.kinds, self._arrays) == self.digest

    def samples_with(self, extensions: Iterable[str]) -> npt.NDArray[np.int64] | None:
        """Return which samples have one of ``extensions``; None if all have."""
        wanted = set(extensions)
        kinds = [number for number, kind in enumerate(self.kinds) if wanted & set(kind)]
        if len(kinds) == len(self.kinds):
            return None
        return np.flatnonzero(np.isin(self._arrays["samples_n3"][: sum(self.counts)][:, 0], kinds))


def index_of(shard: str, cache_folder: str | None, *, is_trusted: bool = True) -> ShardIndex:
    """Return the index of ``shard``; only its head is verified.

    It is written to ``cache_folder``, or next to a shard on a local disk, and reused while the shard's size and
    modification time stay the same. If it cannot be written, the shard is scanned each time, and its index is kept
    in memory. If the index is not trusted, its arrays are verified too.

    Raises:
        DataNotFound: the shard is missing.
        ShardError: the shard is not a tar file, is damaged, or has a member twice.
    """
    filesystem, path = connect(shard, "WebDataset")
    try:
        state = _state(with_retries(shard, lambda: filesystem.info(path)))
    except StoreUnavailable:
        raise
    except (OSError, ValueError) as cause:
        raise DataNotFound(f"WebDataset: cannot open the shard {shard}: {type(cause).__name__}: {cause}") from cause
    cache = _cache_path(shard, filesystem, path, cache_folder)
    known = None if cache is None else _kept(cache)
    if known is not None and known[0] == state and (is_trusted or known[1].is_whole()):
        return known[1]
    if known is not None or (cache is not None and cache.exists()):
        logger.info("{} is damaged, or of another version of the shard or of aimcore: it is made again", cache)
    head, arrays = _scanned(shard, state)
    written = _kept(cache) if cache is not None and _keep(cache, head, arrays) else None
    return written[1] if written is not None else _index(head, arrays, is_kept=False)[1]


def kept_index_of(shard: str, cache_folder: str | None, digest: int, *, verify: bool) -> ShardIndex:
    """Return the index of ``shard`` that was found before, whose digest is known.

    Args:
        shard: its URL.
        cache_folder: as for :func:`index_of`.
        digest: digest of the index that was found.
        verify: read all of the index and compare its digest. A damaged one is made again.

    Raises:
        DataNotFound: index and shard are missing.
        ShardError: the index is missing or has changed, and the shard has changed.
    """
    filesystem, path = connect(shard, "WebDataset")
    cache = _cache_path(shard, filesystem, path, cache_folder)
    known = None if cache is None else _kept(cache)
    if known is not None and known[1].digest == digest and (not verify or known[1].is_whole()):
        return known[1]
    found = index_of(shard, cache_folder, is_trusted=False)
    if found.digest != digest:
        raise ShardError(f"{shard} has changed since it was scanned: start the run again")
    return found


def _scanned(shard: str, state: list[str]) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """Return head and arrays of the index."""
    samples: dict[str, dict[str, Place]] = {}
    ignored: Counter[str] = Counter()
    for member in members_of(shard):
        key, extension = _split(member.name)
        if not member.is_file or not extension:
            ignored["hidden members, and members without an extension" if member.is_file else "links and devices"] += 1
            continue
        parts = samples.setdefault(key, {})
        if extension in parts:
            raise ShardError(f"{shard} has {printable(member.name)!r} twice: write it again with unique names")
        parts[extension] = (member.offset, member.size)
    arrays, kinds = _packed(samples)
    counts = np.bincount(arrays["samples_n3"][:-1, 0], minlength=len(kinds)).tolist()
    head = {"format": _FORMAT, "shard": state, "kinds": kinds, "counts": counts, "ignored": ignored}
    return json.dumps(head | {"digest": f"{_digest(kinds, arrays):016x}"}), arrays


def _digest(kinds: Sequence[Sequence[str]], arrays: Mapping[str, Any]) -> int:
    """Return the digest of an index's content, whether its arrays are in memory or in a file."""
    digest = hashlib.blake2b(json.dumps(kinds).encode(), digest_size=8)
    for name in _ARRAYS:
        array = arrays[name]
        num_rows = len(array) if isinstance(array, np.ndarray) else array.get_shape()[0]
        for start in range(0, num_rows, _PART):
            digest.update(array[start : min(start + _PART, num_rows)].tobytes())
    return int(digest.hexdigest(), 16)


def _checksum(head: str) -> str:
    return hashlib.blake2b(head.encode(), digest_size=8).hexdigest()


def _packed(samples: Mapping[str, Mapping[str, Place]]) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[str, ...]]]:
    """Return the arrays, and the kinds by number."""
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
    """Return key and extension: ``a/b`` and ``seg.png`` for ``a/b.seg.png``. Hidden files have neither."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem else ("", "")


def _state(info: dict[str, Any]) -> list[str]:
    """Return what changes when a shard does: size and, if the file system has it, modification time or version."""
    values = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag"))
    return [str(info.get("size")), next((str(value) for value in values if value is not None), "")]


def _cache_path(shard: str, filesystem: Any, path: str, cache_folder: str | None) -> Path | None:
    if cache_folder is not None:
        name = hashlib.blake2b(shard.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return Path(cache_folder).expanduser() / f"{Path(path).name}.{name}.index.safetensors"
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
    return Path(f"{path}.index.safetensors") if "file" in protocols else None


def _kept(cache: Path) -> tuple[list[str], ShardIndex] | None:
    """Return the shard's state and the index from a file; None if it is missing, damaged, or of another format."""
    try:
        file: Any = safe_open(cache, framework="np")
        arrays = {name: file.get_slice(name) for name in _ARRAYS}
        # One entry: safetensors writes several in any order, and equal indices must be equal files.
        checksum, _, head = file.metadata()["index"].partition(" ")
        if checksum != _checksum(head):
            return None
        state, index = _index(head, arrays, is_kept=True)
        fits = arrays["samples_n3"].get_shape() == [sum(index.counts) + 1, 3]
        return (state, index) if fits else None
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return None


def _index(head: str, arrays: Mapping[str, Any], *, is_kept: bool) -> tuple[list[str], ShardIndex]:
    content = json.loads(head)
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']}")
    kinds, counts = tuple(map(tuple, content["kinds"])), tuple(map(int, content["counts"]))
    ignored = {str(reason): int(count) for reason, count in content["ignored"].items()}
    return content["shard"], ShardIndex(kinds, counts, int(content["digest"], 16), is_kept, ignored, arrays)


def _keep(cache: Path, head: str, arrays: dict[str, npt.NDArray[Any]]) -> bool:
    """Write the index atomically: several processes may do so at the same time."""
    # Without write access, only time and memory are lost.
    with suppress(CannotWrite):
        make_folder(cache.parent)
        write_atomically(cache, save(arrays, {"index": f"{_checksum(head)} {head}"}))
        return True
    return False
