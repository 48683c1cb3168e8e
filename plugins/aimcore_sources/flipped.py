"""Images of another source, upside down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs

from aimcore import OpenSource, PixelStatistics, Sample, Source, component
from aimcore_sources.bundled import BundledFashionMNIST
from aimcore_sources.wrapped import OpenWrapped


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


class OpenFlipped(OpenWrapped):
    """An open source that flips what it reads."""

    def read(self, index: int) -> Sample:
        """Return the sample with its rows of pixels in reverse order."""
        sample = self._source.read(index)
        return attrs.evolve(sample, image=sample.image.flip(-2))
