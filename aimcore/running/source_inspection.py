"""What a source of images holds: counts, sizes, broken samples and duplicates.

Every sample is read once. About 200 bytes are kept of each. n: samples that could be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts import limits
from aimcore.contracts.component import at_least, within
from aimcore.contracts.errors import DataNotFound, InvalidValue
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import NEAR, Indices, near_duplicates
from aimcore.data.streaming import stream
from aimcore.running.source_measurements import UNLABELLED, Chunks, Measurements, joined

Progress = Callable[[str, int, int], None]
_BITS = 64


@attrs.frozen
class Spread:
    """The smallest, the middle and the largest of some numbers."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Spread:
        """Return that of numbers that occur ``counts`` times, of which there is at least one.

        >>> Spread.of({3: 2, 10: 1, 4: 1})
        Spread(minimum=3.0, median=3.5, maximum=10.0)
        """
        values = np.array(sorted(counts))
        reached = np.cumsum([counts[value] for value in values.tolist()])
        total = int(reached[-1])
        middle = values[np.searchsorted(reached, [(total - 1) // 2, total // 2], side="right")]
        return cls(float(values[0]), float(middle.mean()), float(values[-1]))

    @classmethod
    def of_all(cls, values: npt.NDArray[np.number]) -> Spread:
        """Return that of at least one number."""
        return cls(float(values.min()), float(np.median(values)), float(values.max()))


@attrs.frozen(eq=False)
class SourceInspection:
    """What a source holds. Samples are given by their position in the measurements."""

    num_samples: int
    class_names: tuple[str, ...]
    """Names of the classes by label; empty if they are not known."""
    left_out: Mapping[str, int]
    """Numbers of items that the source found and does not read, by reason."""
    measured: Measurements
    most_bits: int
    """Number of bits in which the perceptual hashes of near duplicates differ at most."""
    exact: Sequence[Indices]
    """Groups of samples with equal pixels, ascending."""
    near: Sequence[Indices]
    """Groups of different pixels with similar hashes, ascending. The first sample with some pixels stands for all."""

    @property
    def num_read(self) -> int:
        """Number of samples that could be read."""
        return len(self.measured.rows_n)

    @property
    def num_unlabelled(self) -> int:
        """Number of samples without a label."""
        return int((self.measured.rows_n["label"] == UNLABELLED).sum())

    @property
    def num_without_contrast(self) -> int:
        """Number of images of one colour. They are never near duplicates, because a hash cannot distinguish them."""
        return int((self.measured.rows_n["hash"] == 0).sum())

    def classes(self) -> dict[int, int]:
        """Return the number of samples by label, ascending; classes with a name and no sample have 0."""
        labels, counts = np.unique(self.measured.rows_n["label"], return_counts=True)
        found = dict.fromkeys(range(len(self.class_names)), 0)
        found |= dict(zip(labels.tolist(), counts.tolist(), strict=True))
        found.pop(UNLABELLED, None)
        return dict(sorted(found.items()))

    def name_of(self, label: int) -> str:
        """Return the name of a class, or its number if the name is not known."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def spreads(self) -> dict[str, Spread]:
        """Return the spread of widths, heights, areas and ratios of width to height; empty if nothing could be read."""
        rows_n = self.measured.rows_n
        if not len(rows_n):
            return {}
        width_n, height_n = rows_n["width"].astype(np.int64), rows_n["height"].astype(np.int64)
        values = {"width": width_n, "height": height_n, "pixels": width_n * height_n, "aspect": width_n / height_n}
        return {name: Spread.of_all(value) for name, value in values.items()}

    def extremes(self) -> dict[str, int]:
        """Return the positions of the smallest, largest, widest and tallest image, the first of several."""
        rows_n = self.measured.rows_n
        if not len(rows_n):
            return {}
        width_n, height_n = rows_n["width"].astype(np.int64), rows_n["height"].astype(np.int64)
        area_n, aspect_n = width_n * height_n, width_n / height_n
        return {
            "smallest": int(area_n.argmin()), "largest": int(area_n.argmax()),
            "widest": int(aspect_n.argmax()), "tallest": int(aspect_n.argmin()),
        }  # fmt: skip

    def frequent_sizes(self, most: int) -> list[tuple[int, int, int]]:
        """Return the most frequent sizes as (width, height, number of samples), the most frequent first."""
        rows_n = self.measured.rows_n
        sizes = Counter(zip(rows_n["width"].tolist(), rows_n["height"].tolist(), strict=True))
        return [(*size, count) for size, count in sizes.most_common(most)]

    def has_other_labels(self, group: Indices) -> bool:
        """Whether samples of a group have different labels, one of which is probably wrong."""
        return len(np.unique(self.measured.rows_n["label"][group])) > 1


def inspect_source(
    source: OpenSource, *, num_workers: int = 0, most_bits: int = NEAR, progress: Progress = lambda *_: None
) -> SourceInspection:
    """Read every sample of a source, and return what the source holds. Broken samples do not end it.

    Args:
        source: what is inspected.
        num_workers: processes that read; 0 reads in a thread.
        most_bits: number of bits in which the perceptual hashes of near duplicates differ at most.
        progress: is called with (what, number done, total).

    Raises:
        DataNotFound: the source has no samples.
        InvalidValue: a number is out of range.
        StoreUnavailable: a remote store failed in every attempt.
    """
    problems = [*at_least("workers", num_workers, 0, limits.PROCESSES), *within("near", most_bits, 0, _BITS)]
    if problems:
        raise InvalidValue("inspect", problems)
    if not len(source):
        raise DataNotFound("the source has no samples")
    measured = measure(source, num_workers, progress)
    progress("comparing", 0, 1)
    exact, near = _duplicates(measured, most_bits)
    progress("comparing", 1, 1)
    return SourceInspection(
        len(source), tuple(source.class_names), dict(source.left_out), measured, most_bits, exact, near
    )


def measure(source: OpenSource, num_workers: int, progress: Progress, doing: str = "reading") -> Measurements:
    """Read every sample of a source, which is not empty, and return what was measured."""
    chunks, parts = Chunks(source), list[Measurements]()
    with closing(stream(chunks, range(len(chunks)), num_workers, 1)) as measured:
        for number, part in enumerate(measured, 1):
            progress(doing, min(len(source), number * chunks.size), len(source))
            parts.append(part)
    return joined(parts)


def _duplicates(measured: Measurements, most_bits: int) -> tuple[list[Indices], list[Indices]]:
    """Return the groups of equal pixels, and those of similar hashes among the first of each."""
    rows_n = measured.rows_n
    exact = near_duplicates(rows_n["digest"], 0)  # equal digests
    _, first = np.unique(rows_n["digest"], return_index=True)
    distinct = np.sort(first[rows_n["hash"][first] != 0])
    near = [distinct[group] for group in near_duplicates(rows_n["hash"][distinct], most_bits)]
    return exact, near
