"""Images of another source, upside down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from aimcore import OpenSource, PixelStatistics, Sample, Source, component
from aimcore_sources.bundled import BundledFashionMNIST


@component("flipped", paper="arXiv:2401.08541, Figure 9")
class Flipped(Source):
    """Every image of ``source`` mirrored from top to bottom; labels, captions and order stay.

    The paper compares the losses of rows of patches with those of flipped images, to tell an effect of the order from
    one of the images. Extras that are images are not flipped.
    """

    source: Source

    @property
    def statistics(self) -> PixelStatistics | None:
        """The statistics of ``source``."""
        return self.source.statistics

    def open(self) -> OpenSource:
        """Open ``source``.

        Raises:
            AimcoreError: it cannot be opened.
        """
        return OpenFlipped(self.source.open())

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The bundled test images."""
        return (cls(source=BundledFashionMNIST(split="test")),)


class OpenFlipped(OpenSource):
    """An open source that flips what it reads."""

    def __init__(self, source: OpenSource) -> None:
        self._source = source
        self.class_names = source.class_names
        self.left_out = dict(source.left_out)  # the default cannot be pickled

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Sample:
        """Return the sample with its rows of pixels in reverse order."""
        sample = self._source.read(index)
        return attrs.evolve(sample, image=sample.image.flip(-2))

    def label(self, index: int) -> int | None:
        """Return the label."""
        return self._source.label(index)

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        """Return the labels, if the source knows them."""
        return self._source.known_labels()

    def indices_of(self, sample_numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        """Return what the source itself reads."""
        return self._source.indices_of(sample_numbers, seed)

    def part_of(self, index: int) -> range:
        """Return the part of the source."""
        return self._source.part_of(index)
