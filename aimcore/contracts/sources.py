"""Images by index, with whatever is known about them."""

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


class Source(Component, ABC):
    """Images by index, with whatever is known about them. Random access, always."""

    __slots__ = ()
    role: ClassVar[str] = "sources"

    @property
    def statistics(self) -> PixelStatistics | None:
        """What pixels are normalised with where a study gives no ``mean`` and ``std``; None stands for ImageNet's.

        Override it for images whose statistics are known and are not those of photographs. It must not read any data.
        """
        return None

    @abstractmethod
    def open(self) -> OpenSource:
        """Find the data and make it readable. What this gives is read in other threads than the one that calls this.

        Raises:
            AimcoreError: the data is not there; the message says where it was looked for and how to get it.
        """


class OpenSource(ABC):
    """A source that is ready to be read, in any thread and in several at once.

    Training loads in a thread of its own, or in data workers, for which it must survive pickling; evaluations read in
    the main thread. So files and connections are opened in :meth:`read`, or one per thread (``threading.local``).
    """

    class_names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})
    """How many things the source found and does not give out, by reason: ``{"files of other kinds (.txt)": 12}``.

    Runs log them at the start, and keep them in their summary and report.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The sample at ``index``.

        Raises:
            UnreadableSample: this one is damaged; the loader goes on without it, within a limit.
        """

    def label(self, index: int) -> int | None:
        """The label at ``index``; override it where that is cheaper than reading the image."""
        return self.read(index).label

    def known_labels(self) -> NDArray[np.int64] | None:
        """All labels by index, -1 where a sample has none; None where they are not known without reading samples.

        Override it where labels are in memory: they are then checked before anything is trained.
        """
        return None

    def indices_of(self, sample_numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """The index that training reads for each sample number: every index once per epoch, in another order each.

        Override it to sample otherwise (mixtures do). It must be a pure function: resumption rests on it.
        """
        return index_of(sample_numbers, len(self), seed)

    def part_of(self, index: int) -> range:
        """The indices that training draws from in place of ``index`` where it is unreadable: all of them.

        Override it where :meth:`indices_of` gives parts their shares: a mixture names the source of ``index``.
        """
        return range(len(self))
