"""Confidence intervals of scores."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from torch import Tensor

from aimcore.contracts.results import Score


def wilson_interval(num_correct: int, num_samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, as two fractions ``(low, high)``.

    Unlike the textbook interval p +- z sqrt(p (1 - p) / n) it stays inside [0, 1] and does not shrink to a point at
    0 and 1 (Wilson, Journal of the American Statistical Association 22, 1927).

    Args:
        num_correct: successes.
        num_samples: trials; positive.
        confidence: share of such intervals that hold the true proportion.

    Raises:
        ValueError: there are no samples, or more correct ones than samples.

    >>> [round(end, 4) for end in wilson_interval(50, 100)]
    [0.4038, 0.5962]
    >>> [round(end, 4) for end in wilson_interval(0, 10)]
    [0.0, 0.2775]
    """
    if not 0 <= num_correct <= num_samples or num_samples == 0:
        raise ValueError(f"{num_correct} correct of {num_samples} samples is no proportion")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = num_correct / num_samples, z * z / num_samples
    center = (share + weight / 2) / (1 + weight)
    half = z * sqrt(share * (1 - share) / num_samples + weight / (4 * num_samples)) / (1 + weight)
    return max(0.0, center - half), min(1.0, center + half)


def share(right_n: Tensor, *, chance: float | None = None) -> Score:
    """Return the fraction of ``right_n`` (``[n]`` bool) that is True, with Wilson's 95 % interval.

    Raises:
        ValueError: ``right_n`` is empty.
    """
    num_right, num = int(right_n.sum()), len(right_n)
    return Score(num_right / max(num, 1), num, chance=chance, ci95=wilson_interval(num_right, num))
