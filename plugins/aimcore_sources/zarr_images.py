"""Images in a zarr v3 group, on disk or at any URL that fsspec knows."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from aimcore import OpenSource, Problem, Sample, Source, UnreadableSample, component
from aimcore.errors import DataNotFound
from aimcore.locations import location_problems
from aimcore_sources.decoding import printable
from aimcore_sources.zarr_layout import NO_LABEL, place_of, state_of

_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What zarr, its codecs and file systems raise for data that is damaged or lost."""


@component("zarr")
class ZarrImages(Source):
    """Images that :func:`aimcore_sources.write_zarr` wrote, of any sizes, with labels and captions; random access.

    A group of others is read too if it has an array ``images``, uint8 ``[n, C, H, W]`` or ``[n, H, W, C]``; its array
    ``labels`` and its attribute ``class_names`` are read where they are there. A split is a group of its own.
    """

    url: str
    """The group: a path, or a URL like ``s3://bucket/images.zarr``."""

    def problems(self) -> Iterable[Problem]:
        """A place is needed, whose protocol is allowed."""
        if not self.url:
            yield Problem("url", "must name a zarr group, got ''")
        yield from location_problems("url", self.url)

    def open(self) -> OpenSource:
        """Open the group and read everything but the images.

        Raises:
            DataNotFound: there is no group, it holds no images, or it was never completed.
        """
        return OpenUniform(self.url) if "images" in _group(self.url) else OpenZarrImages(self.url)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """None: the group is the user's."""
        return ()


class _Arrays(NamedTuple):
    """What a group holds besides images, in memory."""

    ends: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int32]
    checksums: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.int64]


class OpenZarrImages(OpenSource):
    """A group in this project's layout; see :mod:`aimcore_sources.zarr_layout`. Data workers open it anew."""

    def __init__(self, url: str) -> None:
        self._url = url
        group = _group(url)
        if state_of(group.attrs) != "complete":
            incomplete = state_of(group.attrs) == "incomplete"
            problem = "was never completed: write it again" if incomplete else "holds no images: write it by write_zarr"
            raise DataNotFound(f"ZarrImages: {url} {problem}")
        try:
            self._arrays = _Arrays(*(np.asarray(group[name][:]) for name in _Arrays._fields))
            self._samples: Any = group["samples"]
            self.class_names = tuple(map(str, group.attrs.get("class_names", ())))
        except _DAMAGE as cause:
            raise _damaged(url, cause) from cause
        lengths = {len(array) for array in self._arrays}
        if len(lengths) > 1 or self._samples.shape != (int(self._arrays.ends[-1:].sum()),):
            raise _damaged(url, "its arrays do not fit each other")

    def __len__(self) -> int:
        return len(self._arrays.ends)

    def read(self, index: int) -> Sample:
        """The sample as it was written, but for its extras.

        Raises:
            UnreadableSample: its bytes are damaged or lost.
        """
        end, shape = int(self._arrays.ends[index]), tuple(map(int, self._arrays.shapes[index]))
        start = int(self._arrays.ends[index - 1]) if index else 0
        try:
            content = np.asarray(self._samples[start:end])
            if zlib.crc32(content.tobytes()) != self._arrays.checksums[index]:
                raise ValueError("its bytes are not those that were written")
            size = math.prod(shape)
            record = json.loads(content[size:].tobytes())
            captions = {kind: tuple(texts) for kind, texts in record["captions"].items()}
            image, identifier = content[:size].reshape(shape), printable(record["identifier"])
        except _DAMAGE as cause:
            raise UnreadableSample(f"{self._url}#{index}", f"{type(cause).__name__}: {cause}") from cause
        return Sample(image=torch.from_numpy(image), identifier=identifier, captions=captions, label=self.label(index))

    def label(self, index: int) -> int | None:
        """The label, from memory."""
        label = int(self._arrays.labels[index])
        return None if label == NO_LABEL else label

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """A data worker opens the group itself."""
        return type(self), (self._url,)


class OpenUniform(OpenSource):
    """A group with one array of equally large images. Data workers open it anew."""

    def __init__(self, url: str) -> None:
        self._url = url
        group = _group(url)
        try:
            self._images: Any = group["images"]
            self._labels = np.asarray(group["labels"][:]).astype(np.int64) if "labels" in group else None
            self.class_names = tuple(map(str, group.attrs.get("class_names", ())))
        except _DAMAGE as cause:
            raise _damaged(url, cause) from cause
        shape: tuple[int, ...] = getattr(self._images, "shape", ())
        kind = str(getattr(self._images, "dtype", "no array"))
        self._channels_last = len(shape) == 4 and shape[1] > 4
        if len(shape) != 4 or kind != "uint8" or not 1 <= shape[3 if self._channels_last else 1] <= 4:
            raise _damaged(url, f"'images' must be uint8 [n, C, H, W] or [n, H, W, C], got {kind} {list(shape)}")
        if self._labels is not None and self._labels.shape != (len(self),):
            raise _damaged(url, f"'labels' must have {len(self)} entries, got {list(self._labels.shape)}")

    def __len__(self) -> int:
        return int(self._images.shape[0])

    def read(self, index: int) -> Sample:
        """The image, named by its index.

        Raises:
            UnreadableSample: its chunk is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        try:
            image = torch.from_numpy(np.asarray(self._images[index]))
        except _DAMAGE as cause:
            raise UnreadableSample(f"{self._url}#{index}", f"{type(cause).__name__}: {cause}") from cause
        image_CHW = image.permute(2, 0, 1).contiguous() if self._channels_last else image
        return Sample(image=image_CHW, identifier=f"{self._url}#{index}", label=self.label(index))

    def label(self, index: int) -> int | None:
        """The label, from memory; None where it is negative, or where there are none."""
        label = NO_LABEL if self._labels is None else int(self._labels[index])
        return None if label < 0 else label

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """A data worker opens the group itself."""
        return type(self), (self._url,)


def _group(url: str) -> Any:
    import zarr  # here, because it takes a while to load

    try:
        return zarr.open_group(place_of(url)[2], mode="r")
    except (*_DAMAGE, ImportError) as cause:
        raise DataNotFound(
            f"ZarrImages: cannot open {url} as a zarr group ({type(cause).__name__}: {cause})"
        ) from cause


def _damaged(url: str, cause: object) -> DataNotFound:
    return DataNotFound(f"ZarrImages: {url} is damaged, or of another kind: {cause}")
