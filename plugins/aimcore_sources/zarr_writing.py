"""Writing of any source's samples to a zarr v3 group, which :class:`~aimcore_sources.ZarrImages` reads."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from loguru import logger
from rich.markup import escape
from rich.progress import track

from aimcore import AimcoreError, OpenSource, Sample, UnreadableSample
from aimcore.contracts.errors import TooManyUnreadable
from aimcore.contracts.messages import printable
from aimcore.io.terminal import Terminal
from aimcore_sources.zarr_layout import DAMAGE, FORMAT, NO_LABEL, Rows, place_of, state_of

CHUNKS_PER_SHARD = 64
UNREADABLE = "samples that could not be read when the group was written"
_EVERY_CHUNK = {"write_empty_chunks": True}
"""Write chunks of zeros too. By default zarr skips them, and they could not be distinguished from lost ones."""
_SMALLEST_CHUNK, _LARGEST_CHUNK = 2**14, 2**20
_COMPRESSED = 0.5
"""Chunks are compressed if that reduces the first sample to this share: decompression takes longer than reading."""


class PlaceTaken(AimcoreError):
    """The destination of samples exists already."""


def write_zarr(
    url: str,
    samples: OpenSource,
    *,
    overwrite: bool = False,
    max_unreadable: int = 100,
    progress: bool = True,
) -> int:
    """Write every sample to a group, one after another. Memory holds about one shard, at most 64 MB.

    Images are stored unchanged, with labels, captions and identifiers, but without a sample's extras. The group is
    complete when its last attribute is written: a group that was interrupted is not read, and writing again
    replaces it.

    Args:
        url: the destination, a path or URL, e.g. ``"s3://bucket/images.zarr"``.
        samples: an open source.
        overwrite: whether to replace a complete group of samples. Anything else is never replaced.
        max_unreadable: how many unreadable samples may be left out.
        progress: whether to show a bar on a terminal.

    Returns:
        The number of samples written.

    Raises:
        TypeError: the destination is not a text, or the source is not open.
        PlaceTaken: the destination exists already.
        TooManyUnreadable: more samples than allowed cannot be read.
    """
    import zarr  # here, because it takes a while to load

    if not isinstance(url, str) or not isinstance(samples, OpenSource):
        raise TypeError(
            f"write_zarr takes a URL and an open source, got {url!r} and {samples!r}: write_zarr(url, s.open())"
        )
    _require_free(url, overwrite)
    group = zarr.open_group(place_of(url)[2], mode="w")
    group.attrs.update({"format": FORMAT, "class_names": list(samples.class_names)})
    writer = GroupWriter(group, samples.class_names, samples.left_out)
    indices = range(len(samples))
    console = Terminal(stderr=True)
    description = escape(f"writing {printable(url)}")
    steps = track(indices, description, console=console, disable=not (progress and console.is_terminal))
    for sample in _readable(samples, steps, max_unreadable):
        writer.add(sample)
    writer.num_unreadable = len(indices) - writer.num_samples
    writer.close()
    return writer.num_samples


def _require_free(url: str, overwrite: bool) -> None:
    import zarr

    files, path, store = place_of(url)
    if not files.exists(path) or (files.isdir(path) and not files.ls(path)):
        return
    try:
        state = state_of(zarr.open_group(store, mode="r").attrs)
    except DAMAGE:
        state = "other"
    if state == "other":
        raise PlaceTaken(f"{url} has other content than samples, which is never replaced: choose another destination")
    if state == "complete" and not overwrite:
        raise PlaceTaken(f"{url} has samples already: choose another destination, or replace them with overwrite=True")


def _readable(samples: OpenSource, indices: Any, max_unreadable: int) -> Iterator[Sample]:
    num_unreadable = 0
    for index in indices:
        try:
            yield samples.read(index)
        except UnreadableSample as failure:
            num_unreadable += 1
            logger.warning("{}; {} of at most {} left out", failure, num_unreadable, max_unreadable)
            if num_unreadable > max_unreadable:
                raise TooManyUnreadable(
                    f"{num_unreadable} samples could not be read, more than max_unreadable = {max_unreadable} allows; "
                    f"the last: {failure}"
                ) from failure


def bytes_of(sample: Sample) -> bytes:
    """Return what is stored of a sample: its pixels ``[H, W, C]``, then its identifier and captions as JSON."""
    record = {"identifier": sample.identifier, "captions": {k: list(v) for k, v in sample.captions.items()}}
    return sample.image.permute(1, 2, 0).numpy().tobytes() + json.dumps(record).encode()


class GroupWriter:
    """A group that grows by whole shards."""

    def __init__(self, group: Any, class_names: Sequence[str], left_out: Mapping[str, int]) -> None:
        """Write to ``group``; ``left_out`` counts what the source itself left out."""
        self._group, self._class_names, self._left_out = group, tuple(class_names), left_out
        self._array: Any = None
        self._waiting = bytearray()
        self._rows: list[tuple[int, tuple[int, ...], int, int]] = []
        self.num_bytes = 0
        self.num_unreadable = 0

    @property
    def num_samples(self) -> int:
        """Return the number of samples so far."""
        return len(self._rows)

    def add(self, sample: Sample) -> None:
        """Add one sample; the bytes are written when a shard is full."""
        self.add_bytes(bytes_of(sample), tuple(sample.image.shape), NO_LABEL if sample.label is None else sample.label)

    def add_bytes(self, content: bytes, shape: tuple[int, ...], label: int) -> None:
        """Add a sample whose bytes, see :func:`bytes_of`, were made before."""
        self.num_bytes += len(content)
        self._rows.append((self.num_bytes, shape, zlib.crc32(content), label))
        self._waiting += content
        if self._array is None:
            self._array = self._new_array(content)
        shard = self._array.shards[0]
        if len(self._waiting) >= shard:
            whole = len(self._waiting) - len(self._waiting) % shard
            self._append(whole)

    def close(self) -> None:
        """Write the remaining samples, then everything about the samples, and finally the mark of completeness."""
        if self._array is None:
            self._array = self._new_array(b"")
        self._append(len(self._waiting))
        ends, shapes, checksums, labels = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        rows = Rows(
            ends=np.array(ends, dtype=np.int64),
            shapes=np.array(shapes, dtype=np.int32).reshape(-1, 3),
            checksums=np.array(checksums, dtype=np.uint32),
            labels=np.array(labels, dtype=np.int64),
        )
        for name, values in rows._asdict().items():
            array = self._group.create_array(name, shape=values.shape, dtype=values.dtype, config=_EVERY_CHUNK)
            array[...] = values
        unreadable = {UNREADABLE: self.num_unreadable} if self.num_unreadable else {}
        left_out = dict(Counter(self._left_out) + Counter(unreadable))
        self._group.attrs.update({"left_out": left_out, "digest": rows.digest(self._class_names)})
        self._group.attrs["complete"] = True

    def _new_array(self, content: bytes) -> Any:
        """Create an empty array for samples like the first: chunks of about four, compressed if that saves much."""
        chunk = min(max(2 ** max(4 * len(content) - 1, 0).bit_length(), _SMALLEST_CHUNK), _LARGEST_CHUNK)
        is_small = len(zlib.compress(content, 1)) <= _COMPRESSED * len(content)
        return self._group.create_array(
            "samples",
            shape=(0,),
            dtype="uint8",
            chunks=(chunk,),
            shards=(CHUNKS_PER_SHARD * chunk,),
            compressors="auto" if is_small else None,
            config=_EVERY_CHUNK,
        )

    def _append(self, number: int) -> None:
        self._array.append(np.frombuffer(self._waiting[:number], dtype=np.uint8))
        del self._waiting[:number]
