"""Images in a zarr v3 group, on disk or at a URL."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from torch import Tensor

from aimcore import OpenSource, Problem, Sample, Source, UnreadableSample, component
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable
from aimcore.contracts.sample_writers import SampleWriter
from aimcore.io.image_files import LARGEST_MAX_PIXELS
from aimcore.io.locations import location_problems
from aimcore.io.retries import StoreUnavailable, with_retries
from aimcore_sources.zarr_joining import ZarrWriter
from aimcore_sources.zarr_layout import (
    DAMAGE,
    FORMAT_CHANNELS_FIRST,
    NO_LABEL,
    Rows,
    num_stored,
    place_of,
    state_of,
    stored,
)

_NAMED = 5
_LONGEST_RECORD = 2**24
"""Largest number of bytes of a sample's captions and identifier; more mean damage."""


@component("zarr")
class ZarrImages(Source):
    """Images written by :func:`aimcore_sources.write_zarr`, of any sizes, with labels and captions; random access.

    Other groups can be read if they have an array ``images``, uint8 ``[n, C, H, W]`` or ``[n, H, W, C]``; an array
    ``labels`` and an attribute ``class_names`` are read if they exist. A split is a group of its own.

    Samples and labels that :func:`~aimcore_sources.write_zarr` wrote have checksums, and a lost chunk is an error. In
    other groups zarr reads a lost chunk as zeros, like a chunk that was not written because it is all zeros. Such
    chunks are counted as left out, for arrays of up to 100,000 chunks.
    """

    url: str
    """The group: a path, or a URL like ``s3://bucket/images.zarr``."""

    def problems(self) -> Iterable[Problem]:
        """Yield a missing URL, and a refused protocol."""
        if not self.url:
            yield Problem("url", "must name a zarr group, got ''")
        yield from location_problems("url", self.url)

    def open(self) -> OpenSource:
        """Open the group, and read everything except the images.

        Raises:
            DataNotFound: the group is missing, has no images, was never completed, or is damaged.
        """
        group = _group(self.url)
        try:
            is_uniform = "images" in group
        except DAMAGE as cause:
            raise _damaged(self.url, cause) from cause
        opened = OpenUniform(self.url) if is_uniform else OpenZarrImages(self.url)
        opened.require_every_chunk()
        return opened

    def writer(self) -> SampleWriter:
        """Return a writer of a group in the layout of :mod:`aimcore_sources.zarr_layout`."""
        return ZarrWriter(self.url, ZarrImages)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the group is the user's."""
        return ()


class OpenZarrImages(OpenSource):
    """A group in this project's layout; see :mod:`aimcore_sources.zarr_layout`. Data workers open it again."""

    def __init__(self, url: str) -> None:
        self._url = url
        group = _group(url)
        if state_of(group.attrs) != "complete":
            incomplete = state_of(group.attrs) == "incomplete"
            problem = "was never completed: write it again" if incomplete else "has no images: write it by write_zarr"
            raise DataNotFound(f"ZarrImages: {url} {problem}")
        self._group = group
        self._channels_first = group.attrs["format"] == FORMAT_CHANNELS_FIRST
        try:
            self._samples: Any = group["samples"]
            self.class_names = tuple(map(str, group.attrs.get("class_names", ())))
            self.left_out = {str(reason): int(count) for reason, count in group.attrs.get("left_out", {}).items()}
            self._rows, self._num_shards = _rows(group), num_stored(self._samples)
            self._digest = group.attrs.get("digest")
            if self._digest not in (None, self._rows.digest(self.class_names)):
                raise ValueError("its labels, or what finds its samples, are not those that were written")
        except DAMAGE as cause:
            raise _damaged(url, cause) from cause

    def require_every_chunk(self) -> None:
        """Refuse a group that lost a shard of samples; in groups of earlier versions, count missing chunks.

        Raises:
            DataNotFound: shards are missing.
        """
        if self._digest is None:
            missing = _missing(self._url, {name: self._group[name] for name in ("samples", *Rows._fields)})
            self.left_out = {**self.left_out, **missing}
            return
        found, number = stored(self._url, "samples", self._samples), self._num_shards
        lost = [] if found is None else [f"c/{shard}" for shard in range(number) if f"c/{shard}" not in found]
        if lost:
            named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
            raise _damaged(self._url, f"{len(lost)} of {number} shards of the array 'samples' are lost: {named}")

    def __len__(self) -> int:
        return len(self._rows.ends)

    def read(self, index: int) -> Sample:
        """Return the written sample, without its extras.

        Raises:
            UnreadableSample: its bytes are damaged or missing.
        """
        end, shape = int(self._rows.ends[index]), tuple(map(int, self._rows.shapes[index]))
        start = int(self._rows.ends[index - 1]) if index else 0
        try:
            content = with_retries(self._url, lambda: np.asarray(self._samples[start:end]))
            if zlib.crc32(content.data) != self._rows.checksums[index]:
                raise ValueError("its bytes are not those that were written")
            size = math.prod(shape)
            record = json.loads(content[size:].tobytes())
            captions = {kind: tuple(texts) for kind, texts in record["captions"].items()}
            image_CHW, identifier = self._image(content[:size], shape), printable(record["identifier"])
        except StoreUnavailable:
            raise
        except DAMAGE as cause:
            raise UnreadableSample(f"{self._url}#{index}", f"{type(cause).__name__}: {cause}") from cause
        return Sample(image=image_CHW, identifier=identifier, captions=captions, label=self.label(index))

    def _image(self, pixels: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Tensor:
        """Return ``[C, H, W]``, with channels next to each other in memory if they are so in the group."""
        if self._channels_first:
            return torch.from_numpy(pixels.reshape(shape))
        channels, height, width = shape
        return torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1)

    def label(self, index: int) -> int | None:
        """Return the label, from memory."""
        label = int(self._rows.labels[index])
        return None if label == NO_LABEL else label

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return all labels, from memory."""
        return np.asarray(self._rows.labels, dtype=np.int64)

    def __reduce__(self) -> tuple[type[Self], tuple[str], dict[str, Any]]:
        """Make a data worker open the group itself, without listing its chunks."""
        return type(self), (self._url,), {"left_out": self.left_out}


def _rows(group: Any) -> Rows:
    """Return all arrays except the samples.

    Raises:
        ValueError: they do not match each other, or the samples.
    """
    arrays, num_bytes = [group[name] for name in Rows._fields], group["samples"].shape
    lengths = {array.shape[:1] for array in arrays}
    # Sizes are checked before anything is read: metadata of a few bytes could ask for gigabytes.
    if len(lengths) > 1 or len(num_bytes) != 1 or not all(length <= num_bytes for length in lengths):
        raise ValueError("its arrays do not match each other")
    rows = Rows(*(np.asarray(array[:]) for array in arrays))
    records = np.diff(rows.ends, prepend=0) - rows.shapes.astype(np.int64).prod(axis=1)
    if int(rows.ends[-1:].sum()) != num_bytes[0] or not np.all((records >= 0) & (records < _LONGEST_RECORD)):
        raise ValueError("its arrays do not match each other")
    return rows


def _missing(url: str, arrays: Mapping[str, Any]) -> dict[str, int]:
    """Count the chunks of each array that are not stored, by reason."""
    found = {}
    for name, array in arrays.items():
        keys = stored(url, name, array)
        if keys is None:
            logger.info("{}: missing chunks of {!r} are not counted ({:,} chunks)", url, name, num_stored(array))
        elif (number := num_stored(array) - len(keys)) > 0:
            found[f"chunks of {name!r} that are missing and read as zeros"] = number
    return found


class OpenUniform(OpenSource):
    """A group with one array of equally large images. Data workers open it again."""

    def __init__(self, url: str) -> None:
        self._url = url
        group = _group(url)
        try:
            self._arrays = {name: group[name] for name in ("images", "labels") if name in group}
            self._images: Any = self._arrays["images"]
            self._channels_last = _has_channels_last(self._images)
            self._labels = _labels(self._arrays["labels"], len(self)) if "labels" in self._arrays else None
            self.class_names = tuple(map(str, group.attrs.get("class_names", ())))
        except DAMAGE as cause:
            raise _damaged(url, cause) from cause

    def require_every_chunk(self) -> None:
        """Count missing chunks: chunks of zeros may not have been written, or chunks were lost."""
        self.left_out = _missing(self._url, self._arrays)

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def read(self, index: int) -> Sample:
        """Return the image; its identifier is its index.

        Raises:
            UnreadableSample: its chunk is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        try:
            image = torch.from_numpy(with_retries(self._url, lambda: np.asarray(self._images[index])))
        except StoreUnavailable:
            raise
        except DAMAGE as cause:
            raise UnreadableSample(f"{self._url}#{index}", f"{type(cause).__name__}: {cause}") from cause
        image_CHW = image.permute(2, 0, 1).contiguous() if self._channels_last else image
        return Sample(image=image_CHW, identifier=f"{self._url}#{index}", label=self.label(index))

    def label(self, index: int) -> int | None:
        """Return the label, from memory; None if it is negative or missing."""
        label = NO_LABEL if self._labels is None else int(self._labels[index])
        return None if label < 0 else label

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        """Return all labels, from memory; negative ones mean no label."""
        return None if self._labels is None else np.maximum(self._labels, NO_LABEL)

    def __reduce__(self) -> tuple[type[Self], tuple[str], dict[str, Any]]:
        """Make a data worker open the group itself, without listing its chunks."""
        return type(self), (self._url,), {"left_out": self.left_out}


def _has_channels_last(images: Any) -> bool:
    """Return whether uniform images are ``[n, H, W, C]``.

    Raises:
        ValueError: the array does not contain images.
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    kind = str(getattr(images, "dtype", "no array"))
    is_last = len(shape) == 4 and shape[1] > 4
    if len(shape) != 4 or kind != "uint8" or not 1 <= shape[3 if is_last else 1] <= 4:
        raise ValueError(f"'images' must be uint8 [n, C, H, W] or [n, H, W, C], got {kind} {list(shape)}")
    num_stored(images)  # raises for chunks without a size
    if math.prod(shape[1:]) > 4 * LARGEST_MAX_PIXELS:
        raise ValueError(f"'images' has {list(shape)} values: more than {LARGEST_MAX_PIXELS:,} pixels per image")
    return is_last


def _labels(labels: Any, number: int) -> npt.NDArray[np.int64]:
    if labels.shape != (number,):  # before they are read: metadata could ask for gigabytes
        raise ValueError(f"'labels' must have {number} entries, got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"'labels' must be integers, got {labels.dtype}")
    return np.asarray(labels[:]).astype(np.int64)


def _group(url: str) -> Any:
    import zarr  # here, because it takes a while to load

    try:
        return with_retries(url, lambda: zarr.open_group(place_of(url)[2], mode="r"))
    except StoreUnavailable:
        raise
    except (*DAMAGE, ImportError) as cause:
        raise DataNotFound(
            f"ZarrImages: cannot open {url} as a zarr group ({type(cause).__name__}: {cause})"
        ) from cause


def _damaged(url: str, cause: object) -> DataNotFound:
    problem = f"{type(cause).__name__}: {cause}" if isinstance(cause, BaseException) else cause
    return DataNotFound(f"ZarrImages: {url} is damaged, or of another kind: {problem}. Copy or write it again")
