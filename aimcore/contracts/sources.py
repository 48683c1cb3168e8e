"""Sources: images by index, with their captions, labels and extras."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aimcore.contracts.batches import Sample
from aimcore.contracts.component import Component
from aimcore.contracts.images import PixelStatistics
from aimcore.contracts.randomness import index_of
from aimcore.contracts.sample_writers import SampleWriter


class Source(Component, ABC):
    """Images by index, with their captions, labels and extras. Access is always random."""

    __slots__ = ()
    role: ClassVar[str] = "sources"

    @property
    def statistics(self) -> PixelStatistics | None:
        """Statistics that normalise pixels if a study gives no ``mean`` and ``std``; None means those of ImageNet.

        Override it for images that are not photographs and whose statistics are known. It must not read any data.
        """
        return None

    def writer(self) -> SampleWriter | None:
        """Return what writes samples where this source would read them, for conversions; None if nothing does.

        Raises:
            InvalidValue: this source cannot be written with its settings.
        """
        return None

    @abstractmethod
    def open(self) -> OpenSource:
        """Find the data and prepare it for reading. Other threads than the calling one read the result.

        Raises:
            AimcoreError: the data does not exist; the message says where the source looked and how to get the data.
        """


class OpenSource(ABC):
    """A source that is ready to be read, from any thread and from several threads at once.

    Training reads it in a separate thread or in data workers, which pickle it; evaluations read it in the main thread.
    So open files and connections in :meth:`read`, or once per thread (``threading.local``).
    """

    class_names: tuple[str, ...] = ()
    """Names of the classes by label; empty if they are not known."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Numbers of items that the source found but skips, by reason: ``{"files of other kinds (.txt)": 12}``.

    Runs log them at the start and store them in their summary and report.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return the sample at ``index``.

        Raises:
            UnreadableSample: the sample is damaged; the loader skips it, up to a limit.
        """

    def read_with_file(self, index: int) -> tuple[Sample, bytes | None]:
        """Return the sample at ``index``, and the content of its image file; None if its image is not in a file.

        Conversions copy the file without loss. Override it if :meth:`read` decodes a file.

        Raises:
            UnreadableSample: the sample is damaged.
        """
        return self.read(index), None

    def label(self, index: int) -> int | None:
        """Return the label at ``index``; override it if that is possible without reading the image."""
        return self.read(index).label

    def known_labels(self) -> NDArray[np.int64] | None:
        """Return all labels ``[n]`` by index, -1 for a sample without; None if they require reading the samples.

        Override it if labels are in memory: they are then checked before training.
        """
        return None

    def indices_of(self, sample_numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Return the index that training reads for each sample number: a new permutation of all indices per epoch.

        Override it for another sampling scheme, as mixtures do. It must be a pure function, so that runs can resume.
        """
        return index_of(sample_numbers, len(self), seed)

    def part_of(self, index: int) -> range:
        """Return the indices from which training draws a replacement if ``index`` is unreadable: by default all.

        Override it if :meth:`indices_of` samples parts with fixed shares: a mixture returns the part of ``index``.
        """
        return range(len(self))
