"""A few labelled images of another source: equally many of each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from aimcore import InvalidValue, OpenSource, PixelStatistics, Problem, Sample, Source, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.randomness import smallest_hashes
from aimcore_sources.bundled import BundledFashionMNIST

Indices = npt.NDArray[np.int64]


@component("few_labels")
class FewLabels(Source):
    """``per_class`` images of each class of ``source``: for training with few labels, such as fine-tuning.

    The draw is a function of its number and of the images' numbers alone. Subsets of one draw are nested: 100 images
    per class contain the 10 per class. They are the images that ``probe_labels_per_class`` gives to probes in the same
    draw. Not in the papers.
    """

    source: Source
    """A source with labels."""
    per_class: int = 10
    """Number of images of each class."""
    draw: int = 0
    """Number of the draw: another draw has other images."""

    @property
    def statistics(self) -> PixelStatistics | None:
        """The statistics of ``source``."""
        return self.source.statistics

    def problems(self) -> Iterable[Problem]:
        """Yield numbers that are too small or too large."""
        yield from at_least("per_class", self.per_class, 1, limits.IMAGES)
        yield from at_least("draw", self.draw, 0, limits.DRAWS)

    def open(self) -> OpenSource:
        """Open ``source`` and read its labels.

        Raises:
            InvalidValue: its images have no labels, or a class has fewer than ``per_class`` images.
            AimcoreError: it cannot be opened.
        """
        opened = self.source.open()
        return OpenSubset(opened, _chosen(_labels(opened), opened.class_names, self.per_class, self.draw))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Three images of each class of the bundled ones."""
        return (cls(source=BundledFashionMNIST(split="test"), per_class=3),)


class OpenSubset(OpenSource):
    """Some samples of an open source, ascending by their index there."""

    def __init__(self, source: OpenSource, indices_n: Indices) -> None:
        self._source, self._indices_n = source, indices_n
        self.class_names = source.class_names
        self.left_out = dict(source.left_out)  # the default cannot be pickled

    def __len__(self) -> int:
        return len(self._indices_n)

    def read(self, index: int) -> Sample:
        """Return the sample with the label, captions and identifier that it has in the source."""
        return self._source.read(self._at(index))

    def read_with_file(self, index: int) -> tuple[Sample, bytes | None]:
        """Return what the source does."""
        return self._source.read_with_file(self._at(index))

    def label(self, index: int) -> int | None:
        """Return the label."""
        return self._source.label(self._at(index))

    def known_labels(self) -> Indices | None:
        """Return the labels of the subset, if the source knows its labels."""
        known = self._source.known_labels()
        return None if known is None else known[self._indices_n]

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, no number {index}")
        return int(self._indices_n[index])


def _labels(opened: OpenSource) -> Indices:
    """Return all labels, -1 for none: from memory if the source has them there."""
    known = opened.known_labels()
    if known is not None:
        return known
    given = (opened.label(index) for index in range(len(opened)))
    return np.array([-1 if label is None else label for label in given], dtype=np.int64)


def _chosen(labels_n: Indices, class_names: Sequence[str], per_class: int, draw: int) -> Indices:
    """Return the indices of ``per_class`` images of each class, ascending."""
    classes, counts = np.unique(labels_n[labels_n >= 0], return_counts=True)
    if not len(classes):
        raise InvalidValue("few_labels", [("source", "its images have no labels: give a source with labels")])
    place = int(counts.argmin())
    if counts[place] < per_class:
        label = int(classes[place])
        which = f"class {label} ({class_names[label]})" if label < len(class_names) else f"class {label}"
        message = f"must be at most {counts[place]}, the number of images of {which}; got {per_class}"
        raise InvalidValue("few_labels", [("per_class", message)])
    found = [smallest_hashes(np.flatnonzero(labels_n == label), per_class, draw, "few labels") for label in classes]
    return np.sort(np.concatenate(found))
