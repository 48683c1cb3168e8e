"""Paired differences between the variants of a study: equal seeds, and equal test images.

A variant is a group of runs whose recipes differ only in name and seed. Runs with the same seed see the same crops in
the same order, because crops are functions of seed and sample number, and their probes are tested on the same images.
So the noise that both runs share is not in the difference between their scores.

Shape suffixes: lower-case n is the number of test images, s the number of seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import fmean

import attrs
import numpy as np

from aimcore.report.seeds import Variant
from aimcore.running.correctness import Correctness
from aimcore.running.resampling import Interval, bootstrap_interval, student_interval
from aimcore.running.summary import ExperimentSummary, ProbeSummary

MAX_ALL_PAIRS = 4
"""Largest number of variants of which every pair is compared; of more variants, each is compared with the first."""


@attrs.frozen
class PairedDifference:
    """The score of one variant minus that of another one, as fractions."""

    variant: str
    reference: str
    """The variant whose score is subtracted."""
    score: str
    """The name of a probe, or of an evaluation's score."""
    by_seed: tuple[float, ...]
    """The difference for each seed that both variants have."""
    over_images: Interval | None
    """95 % percentile bootstrap interval of the mean difference over test images; None if the summary does not record
    the same test images for both."""
    over_seeds: Interval | None
    """95 % interval of Student's t of the mean difference over seeds; None for a single seed."""

    @property
    def mean(self) -> float:
        """The mean difference over seeds."""
        return fmean(self.by_seed)

    @property
    def is_clear(self) -> bool:
        """Whether there is an interval, and none includes zero."""
        known = [interval for interval in (self.over_images, self.over_seeds) if interval is not None]
        return bool(known) and all(low > 0 or high < 0 for low, high in known)


def paired_differences(variants: Sequence[Variant]) -> tuple[PairedDifference, ...]:
    """Return the differences of all scores that two variants measured with the same seed.

    The later variant of the study is compared with the earlier one: all pairs of up to :data:`MAX_ALL_PAIRS` variants,
    otherwise each variant with the first one.
    """
    pairs = combinations(variants, 2)
    kept = pairs if len(variants) <= MAX_ALL_PAIRS else ((variants[0], variant) for variant in variants[1:])
    return tuple(found for reference, variant in kept for found in _differences(variant, reference))


def _differences(variant: Variant, reference: Variant) -> Iterator[PairedDifference]:
    seeds = [seed for seed in variant.by_seed if seed in reference.by_seed]
    pairs = [(variant.by_seed[seed], reference.by_seed[seed]) for seed in seeds]
    names = dict.fromkeys(name for pair in pairs for entry in pair for name in scores_of(entry))
    for name in names:
        both = [(one, other) for one, other in pairs if name in scores_of(one) and name in scores_of(other)]
        if both:
            by_seed = tuple(scores_of(one)[name] - scores_of(other)[name] for one, other in both)
            yield PairedDifference(
                variant=variant.name,
                reference=reference.name,
                score=name,
                by_seed=by_seed,
                over_images=_over_images([(_record(one, name), _record(other, name)) for one, other in both]),
                over_seeds=student_interval(by_seed) if len(by_seed) > 1 else None,
            )


def scores_of(entry: ExperimentSummary) -> dict[str, float]:
    """Return each score of probes and evaluations, as a fraction."""
    probes = {name: probe.top1 for name, probe in (entry.probes or {}).items()}
    return {**probes, **{name: score.value for name, score in (entry.evaluations or {}).items()}}


def _record(entry: ExperimentSummary, name: str) -> Correctness | None:
    probe: ProbeSummary | None = (entry.probes or {}).get(name)
    return None if probe is None else probe.correct


def _over_images(records: Sequence[tuple[Correctness | None, Correctness | None]]) -> Interval | None:
    """Resample images, each with its predictions of all seeds; None if some run was tested on other images."""
    known = [record for pair in records for record in pair if record is not None]
    if len(known) < 2 * len(records) or len({record.images for record in known}) > 1:
        return None
    right_sn = np.stack([record.right_n() for record in known]).astype(np.float64)
    return bootstrap_interval((right_sn[::2] - right_sn[1::2]).mean(0))
