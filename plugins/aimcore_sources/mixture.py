"""Several sources as one, each with a share of the training samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from aimcore import OpenSource, PixelStatistics, Problem, Sample, Source, component
from aimcore.contracts.randomness import index_of, keyed_bits
from aimcore_sources.bundled import BundledFashionMNIST

Indices = npt.NDArray[np.int64]

_MAX_DENOMINATOR = 10_000
_MAX_PERIOD = 10_000_000
_UNLABELLED = "labels of samples, because the sources have different class names"


@component("mixture", paper="arXiv:2401.08541, section 3; arXiv:2411.14402, Table 2")
class Mixture(Source):
    """Sources with sampling probabilities that do not depend on their sizes.

    By index, the mixture is the concatenation of its sources, so that evaluation reads each sample once. Training reads
    by sample number: the weights are written as integers without a common divisor (0.8 and 0.2 as 4 and 1). Each block
    of that many samples (here 5) has exactly this number of samples of each source, in an order drawn anew for each
    block. Within a source every sample occurs once per epoch *of that source* (epochs may overlap within a block). So a
    small source is repeated in new orders while a large one continues.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    """How often each source is read, in any unit: ``(30, 30, 9, 28, 3)``, or ``(0.8, 0.2)``."""

    def problems(self) -> Iterable[Problem]:
        """Yield weights that do not match the sources, or are no small ratios."""
        if not self.sources:
            yield Problem("sources", "name at least one source")
        elif len(self.weights) != len(self.sources):
            yield Problem("weights", f"must be one per source ({len(self.sources)}), got {len(self.weights)}")
        elif not all(0 < weight < math.inf for weight in self.weights):
            yield Problem("weights", f"must be positive, got {self.weights}: leave out a source that is never read")
        elif min(self.weights) * _MAX_DENOMINATOR < max(self.weights):
            yield Problem("weights", f"must not differ by more than a factor of {_MAX_DENOMINATOR}, got {self.weights}")
        elif sum(quotas(self.weights)) > _MAX_PERIOD:
            yield Problem("weights", f"must be ratios of small whole numbers, such as percentages, got {self.weights}")

    @property
    def statistics(self) -> PixelStatistics | None:
        """The statistics of its sources, if all have the same."""
        own = {source.statistics for source in self.sources}
        return own.pop() if len(own) == 1 else None

    def open(self) -> OpenSource:
        """Open every source.

        Raises:
            AimcoreError: a source cannot be opened.
        """
        return OpenMixture(tuple(source.open() for source in self.sources), quotas(self.weights))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """AIM's 0.8 and 0.2 (arXiv:2401.08541, section 3), of the bundled images."""
        sources = (BundledFashionMNIST(split="train"), BundledFashionMNIST(split="test"))
        return (cls(sources=sources, weights=(0.8, 0.2)),)


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Return integers in the proportion of ``weights``, without a common divisor: (0.3, 0.6) gives (1, 2).

    Weights are taken as the closest fractions of the largest one, with denominators up to 10,000.

    >>> quotas((0.8, 0.2))
    (4, 1)
    """
    largest = max(weights)
    fractions = [Fraction(weight / largest).limit_denominator(_MAX_DENOMINATOR) for weight in weights]
    common = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * common) for fraction in fractions]
    divisor = math.gcd(*whole)
    return tuple(number // divisor for number in whole)


@attrs.frozen(eq=False)
class SourceDraws:
    """For each sample number: its source, and the number of earlier samples of that source."""

    source: Indices
    ordinal: Indices


def draw(sample_numbers: npt.ArrayLike, shares: Sequence[int], seed: int) -> SourceDraws:
    """Assign sample numbers: of every ``sum(shares)`` consecutive ones from 0 on, source k gets ``shares[k]``."""
    period = sum(shares)
    ends = np.cumsum(shares)
    numbers = np.asarray(sample_numbers, dtype=np.int64)
    places = index_of(numbers, period, seed)
    source = np.searchsorted(ends, places, side="right")
    within = places - (ends - np.asarray(shares))[source]
    return SourceDraws(source=source, ordinal=numbers // period * np.asarray(shares)[source] + within)


class OpenMixture(OpenSource):
    """Concatenated open sources; :meth:`indices_of` mixes them.

    It has labels and names of classes if all sources have the same names. Otherwise ``left_out`` counts the samples
    whose labels are dropped.
    """

    def __init__(self, sources: tuple[OpenSource, ...], shares: tuple[int, ...]) -> None:
        self._sources = sources
        self._shares = shares
        self._ends = np.cumsum([len(source) for source in sources])
        self._are_labelled = len({source.class_names for source in sources}) == 1
        self.class_names = sources[0].class_names if self._are_labelled else ()
        self.left_out = {
            f"{reason}, in source {number}": count
            for number, source in enumerate(sources)
            for reason, count in source.left_out.items()
        }
        num_labelled = sum(len(source) for source in sources if source.class_names)
        if not self._are_labelled and num_labelled:
            self.left_out[_UNLABELLED] = num_labelled

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> Sample:
        """Return the sample; its identifier includes the number of its source."""
        number, place = self._at(index)
        return self._renamed(number, self._sources[number].read(place))

    def read_with_file(self, index: int) -> tuple[Sample, bytes | None]:
        """Return the sample, and the file if its source has one."""
        number, place = self._at(index)
        sample, content = self._sources[number].read_with_file(place)
        return self._renamed(number, sample), content

    def _renamed(self, number: int, sample: Sample) -> Sample:
        label = sample.label if self._are_labelled else None
        return attrs.evolve(sample, identifier=f"{number}/{sample.identifier}", label=label)

    def label(self, index: int) -> int | None:
        """Return the label, if all sources have the same names."""
        if not self._are_labelled:
            return None
        number, place = self._at(index)
        return self._sources[number].label(place)

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        """Return the labels of all sources one after another, if all know theirs and have the same names."""
        known = [source.known_labels() for source in self._sources] if self._are_labelled else []
        found = [labels for labels in known if labels is not None]
        return np.concatenate(found) if len(found) == len(self._sources) else None

    def indices_of(self, sample_numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        """Return indices of each source by its share; the order within a source is its own."""
        drawn = draw(sample_numbers, self._shares, _seed_of(seed, "shares"))
        indices = np.empty_like(drawn.ordinal)
        for number, source in enumerate(self._sources):
            here = drawn.source == number
            first = self._ends[number] - len(source)
            indices[here] = first + source.indices_of(drawn.ordinal[here], _seed_of(seed, f"source {number}"))
        return indices

    def part_of(self, index: int) -> range:
        """Return the number of the source that ``index`` belongs to, or its part if the source has parts itself."""
        number, place = self._at(index)
        part, first = self._sources[number].part_of(place), index - place
        return range(first + part.start, first + part.stop)

    def _at(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples, no number {index}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + len(self._sources[number])


def _seed_of(seed: int, purpose: str) -> int:
    """Return independent seeds: two equal sources in one mixture must not be read in the same order."""
    return int(keyed_bits(seed, f"mixture {purpose}", 0))
