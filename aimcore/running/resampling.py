"""Intervals of scores and of differences between scores: bootstrap over test images, and Student's t over seeds.

Shape suffixes: lower-case n is the number of test images, s the number of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
"""Seed of all resamples, so that the same scores always have the same intervals."""

Interval = tuple[float, float]


def bootstrap_interval(
    value_n: npt.ArrayLike, *, confidence: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Return the percentile bootstrap interval of the mean of ``value_n`` (Efron, Annals of Statistics 7, 1979).

    Each resample draws ``n`` values with replacement. A mean depends only on how often each distinct value is drawn,
    and these numbers are multinomial, so they are drawn directly: the distribution is the same, and the cost does not
    depend on ``n``. If all values are equal the interval is a point, which says nothing about other test images.

    Args:
        value_n: a value per test image, such as 1 for a correct prediction and 0 for a wrong one.
        confidence: share of the resamples' means that lie in the interval.
        num_resamples: number of resamples.
        seed: determines the resamples.

    Raises:
        ValueError: there are no values.

    >>> low, high = bootstrap_interval([1] * 50 + [0] * 50)
    >>> round(low, 2), round(high, 2)
    (0.4, 0.6)
    """
    distinct, counts = np.unique(np.asarray(value_n, dtype=np.float64), return_counts=True)
    num = int(counts.sum())
    if not num:
        raise ValueError("a bootstrap interval needs at least one value")
    drawn = np.random.default_rng(seed).multinomial(num, counts / num, size=num_resamples)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn @ distinct / num, [tail, 100 - tail])
    return float(low), float(high)


def student_interval(value_s: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return Student's t interval of the mean of independent values, such as differences per seed.

    Raises:
        ValueError: there are fewer than two values.

    >>> [round(end, 3) for end in student_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    from scipy.stats import t  # here, because it takes a while to load

    if len(value_s) < 2:
        raise ValueError(f"an interval over seeds needs at least two values, got {len(value_s)}")
    half = float(t.ppf(0.5 + confidence / 2, len(value_s) - 1)) * stdev(value_s) / sqrt(len(value_s))
    return fmean(value_s) - half, fmean(value_s) + half
