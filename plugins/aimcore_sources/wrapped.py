"""An open source that reads the samples of another one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aimcore import OpenSource


class OpenWrapped(OpenSource):
    """Labels, order and parts are those of the other source; ``read`` is up to the subclass."""

    def __init__(self, source: OpenSource) -> None:
        self._source = source
        self.class_names = source.class_names
        self.left_out = dict(source.left_out)  # the default cannot be pickled

    def __len__(self) -> int:
        return len(self._source)

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
