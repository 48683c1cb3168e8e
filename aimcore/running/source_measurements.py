"""Measurements of the samples of a source: sizes, hashes, captions and files, and the samples that cannot be read.

n: samples that could be read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
from torch import Tensor

from aimcore.contracts.batches import Sample
from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import perceptual_hash
from aimcore.io.image_files import form_of

Key = TypeVar("Key")
UNLABELLED = -1
"""Label of samples without one."""
CHUNK = 64
"""Default number of samples that are measured together."""
_ROW = np.dtype([("index", "i8"), ("height", "i4"), ("width", "i4"), ("label", "i8"), ("hash", "u8"), ("digest", "u8")])


@attrs.frozen
class BrokenSample:
    """A sample that cannot be read."""

    index: int
    identifier: str
    cause: str


@attrs.frozen
class CaptionLengths:
    """The captions of one kind. Equal lengths are counted, so that memory does not grow with the captions."""

    num_samples: int = 0
    """Number of samples with at least one caption of the kind."""
    characters: Counter[int] = attrs.field(factory=Counter)
    """Number of captions by length in characters."""
    words: Counter[int] = attrs.field(factory=Counter)
    """Number of captions by number of words, which white space separates."""

    @property
    def num_captions(self) -> int:
        """Number of captions of the kind."""
        return self.words.total()


@attrs.frozen(eq=False)
class Measurements:
    """Measurements of samples, in the order of their indices."""

    rows_n: npt.NDArray[Any]
    """``index``, ``height``, ``width``, ``label`` (-1 without), ``hash`` (perceptual; 0 for images without any
    contrast), and ``digest``: equal for equal pixels, and otherwise different except by chance (1 in 2^64 per pair)."""
    identifiers: Sequence[str]
    captions: Mapping[str, CaptionLengths]
    """Captions by kind."""
    forms: Counter[str]
    """Number of images by format and mode: ``JPEG RGB``."""
    num_bytes: int
    """Size of all image files; 0 if images are not in files."""
    broken: Sequence[BrokenSample]


@attrs.frozen(eq=False)
class Chunks:
    """Measures chunk ``number`` of the samples; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    size: int = CHUNK
    """Number of samples of a chunk."""

    def __len__(self) -> int:
        """Number of chunks."""
        return -(-len(self.source) // self.size)

    def __getitem__(self, number: int) -> Measurements:
        """Read the samples of a chunk. Those that cannot be read are named."""
        rows: list[tuple[int, ...]] = []
        identifiers: list[str] = []
        captions: dict[str, CaptionLengths] = {}
        forms: Counter[str] = Counter()
        broken, num_bytes = [], 0
        for index in range(number * self.size, min(len(self.source), (number + 1) * self.size)):
            try:
                sample, content = self.source.read_with_file(index)
            except UnreadableSample as failure:
                broken.append(BrokenSample(index, failure.identifier, failure.cause))
                continue
            rows.append(_row(index, sample))
            identifiers.append(sample.identifier)
            forms[_form(sample.image, content)] += 1
            num_bytes += len(content or b"")
            for kind, texts in sample.captions.items():
                if texts:
                    captions[kind] = _added([captions.get(kind, CaptionLengths()), _lengths(texts)])
        return Measurements(np.array(rows, dtype=_ROW), identifiers, captions, forms, num_bytes, broken)


def joined(parts: Sequence[Measurements]) -> Measurements:
    """Return the measurements of all parts, of which there is at least one."""
    kinds = sorted({kind for part in parts for kind in part.captions})
    return Measurements(
        rows_n=np.concatenate([part.rows_n for part in parts]),
        identifiers=[identifier for part in parts for identifier in part.identifiers],
        captions={kind: _added(part.captions[kind] for part in parts if kind in part.captions) for kind in kinds},
        forms=_sum(part.forms for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        broken=[one for part in parts for one in part.broken],
    )


def _row(index: int, sample: Sample) -> tuple[int, ...]:
    _, height, width = sample.image.shape
    label = UNLABELLED if sample.label is None else sample.label
    return index, height, width, label, perceptual_hash(sample.image), pixel_digest(sample.image)


def _form(image_CHW: Tensor, content: bytes | None) -> str:
    channels = image_CHW.shape[0]
    return f"pixels, {channels} channel{'' if channels == 1 else 's'}" if content is None else form_of(content)


def pixel_digest(image_CHW: Tensor) -> int:
    """Return 64 bits that are equal for equal images, and otherwise different except by chance."""
    # Decoded images have their channels next to each other, so that this copies nothing.
    pixels_HWC = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
    content = hashlib.blake2b(str(pixels_HWC.shape).encode(), digest_size=8)
    content.update(pixels_HWC.data)
    return int.from_bytes(content.digest())


def _lengths(texts: Sequence[str]) -> CaptionLengths:
    return CaptionLengths(1, Counter(map(len, texts)), Counter(len(text.split()) for text in texts))


def _added(all_lengths: Iterable[CaptionLengths]) -> CaptionLengths:
    parts = list(all_lengths)
    return CaptionLengths(
        sum(part.num_samples for part in parts),
        _sum(part.characters for part in parts),
        _sum(part.words for part in parts),
    )


def _sum(counters: Iterable[Counter[Key]]) -> Counter[Key]:
    total: Counter[Key] = Counter()
    for counter in counters:
        total.update(counter)
    return total
