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
"""Largest number of variants with a score of which every pair is compared; of more, each is compared with the first."""


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

    The later variant of the study is compared with the earlier one: of each score, all pairs of up to
    :data:`MAX_ALL_PAIRS` variants that have it, otherwise each variant with the first one. Scores of different test
    images are not compared.
    """
    compared: dict[tuple[int, int], list[str]] = {}
    for score in dict.fromkeys(score for variant in variants for score in _scores(variant)):
        having = [place for place, variant in enumerate(variants) if score in _scores(variant)]
        few = len(having) <= MAX_ALL_PAIRS
        for pair in combinations(having, 2) if few else ((having[0], place) for place in having[1:]):
            compared.setdefault(pair, []).append(score)
    return tuple(
        found
        for reference, variant in sorted(compared)
        for found in _differences(variants[variant], variants[reference], compared[reference, variant])
    )


def _scores(variant: Variant) -> dict[str, None]:
    """Return the names of the scores of a variant, in the order of its runs."""
    return dict.fromkeys(name for entry in variant.by_seed.values() for name in scores_of(entry))


def _differences(variant: Variant, reference: Variant, names: Sequence[str]) -> Iterator[PairedDifference]:
    seeds = [seed for seed in variant.by_seed if seed in reference.by_seed]
    pairs = [(variant.by_seed[seed], reference.by_seed[seed]) for seed in seeds]
    for name in names:
        both = [
            (one, other)
            for one, other in pairs
            if name in scores_of(one) and name in scores_of(other) and not _other_images(one, other, name)
        ]
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


def _other_images(one: ExperimentSummary, other: ExperimentSummary, name: str) -> bool:
    """Return whether the summary records that two runs were tested on different images."""
    records = [_record(entry, name) for entry in (one, other)]
    return len({record.images for record in records if record is not None}) > 1


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
