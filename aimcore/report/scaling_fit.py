"""A saturating power law through the best points of a study of scaling, with intervals: L(C) = E + A (C / C0)^-a.

It is fitted along the lower envelope of all sizes, because that is what arXiv:2411.14402, Figure 2 (right) speaks of:
the loss that a budget buys with the best size for it. A joint law of size and samples would need more sizes than such a
study has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.report.scaling import Curve, Point, envelope

MIN_POINTS = 5
"""Two more than the law has parameters."""
NUM_RESAMPLES = 500
_SEED = 0
_MIN_RESAMPLED = 4
"""Different points that a resample's envelope must have: one more than the law has parameters."""
_STARTS = tuple((floor, exponent) for floor in (0.0, 0.5, 0.9) for exponent in (0.05, 0.3, 1.0))
"""Shares of the lowest loss, and exponents, to begin the search with: it has several minima."""
_MAX_EXPONENT = 5.0

Floats = npt.NDArray[np.float64]


@attrs.frozen
class PowerLaw:
    """L(C) = floor + scale (C / reference)^-exponent."""

    floor: float
    scale: float
    exponent: float
    reference: float
    """Geometric mean of the points' FLOPs."""
    residual: float
    """Root of the mean squared residual of log L."""

    def loss(self, flops: Floats) -> Floats:
        """The law's loss at budgets."""
        return np.asarray(self.floor + self.scale * (flops / self.reference) ** -self.exponent)


@attrs.frozen
class Fit:
    """The law, and how sure it is."""

    law: PowerLaw
    num_points: int
    exponent_ci95: tuple[float, float] | None
    floor_ci95: tuple[float, float] | None
    """2.5 % and 97.5 % quantiles over resamples; None where most resamples have too few points."""
    num_resamples: int
    """Resamples that had enough points, of ``NUM_RESAMPLES``."""


def fit(curves: Sequence[Curve]) -> Fit | str:
    """Fit the law to the envelope of ``curves`` by least squares of log L; or say why there is none.

    The intervals are a bootstrap with a fixed seed: of each size, its trained models are drawn with replacement, and
    the envelope is found anew and fitted.
    """
    points = envelope(curves)
    if len(points) < MIN_POINTS:
        return (
            f"{len(points)} point{'' if len(points) == 1 else 's'} on the lower envelope; a power law with a floor "
            f"takes at least {MIN_POINTS}: train more sizes, or more numbers of samples"
        )
    law = fit_points(points)
    laws = _resampled(curves, law)
    enough = 2 * len(laws) >= NUM_RESAMPLES
    return Fit(
        law=law,
        num_points=len(points),
        exponent_ci95=_interval([one.exponent for one in laws]) if enough else None,
        floor_ci95=_interval([one.floor for one in laws]) if enough else None,
        num_resamples=len(laws),
    )


def fit_points(points: Sequence[Point], weights: Sequence[int] | None = None, near: PowerLaw | None = None) -> PowerLaw:
    """The law that comes nearest to ``points`` in the logarithm.

    Args:
        points: at least three, of different compute.
        weights: how often each counts; once by default.
        near: where to search; everywhere by default.
    """
    from scipy.optimize import least_squares

    flops, losses = (
        np.array([getattr(point, name) for point in points], dtype=np.float64) for name in ("flops", "loss")
    )
    reference = float(np.exp(np.log(flops).mean()))
    lowest, root = float(losses.min()), np.sqrt(np.ones(len(points)) if weights is None else np.asarray(weights))

    def law_of(values: Floats) -> PowerLaw:
        share, log_scale, exponent = map(float, values)
        return PowerLaw(share * lowest, float(np.exp(log_scale)), exponent, reference, 0.0)

    def residuals(values: Floats) -> Floats:
        return np.asarray(root * (np.log(law_of(values).loss(flops)) - np.log(losses)))

    middle = float(np.median(losses))
    starts = _STARTS if near is None else ((min(near.floor / lowest, 0.99), near.exponent),)
    bounds = ([0.0, -np.inf, 1e-3], [0.999, np.inf, _MAX_EXPONENT])
    found = (
        least_squares(
            residuals, (share, np.log(middle - share * lowest), min(exponent, 0.99 * _MAX_EXPONENT)), bounds=bounds
        )
        for share, exponent in starts
    )
    best = min(found, key=lambda result: float(result.cost))
    rms = float(np.sqrt(2 * best.cost / np.sum(root**2)))
    return attrs.evolve(law_of(best.x), residual=rms)


def _resampled(curves: Sequence[Curve], law: PowerLaw) -> list[PowerLaw]:
    generator = np.random.default_rng(_SEED)
    laws = []
    for _ in range(NUM_RESAMPLES):
        drawn = [_drawn(curve, generator) for curve in curves]
        times = Counter(point for _, points in drawn for point in points)
        best = envelope([curve for curve, _ in drawn])
        if len(best) >= _MIN_RESAMPLED:
            laws.append(fit_points(best, [times[point] for point in best], near=law))
    return laws


def _drawn(curve: Curve, generator: np.random.Generator) -> tuple[Curve, list[Point]]:
    """A curve of the different points among as many as it has, drawn with replacement; and all that were drawn."""
    number = len(curve.points)
    drawn = [curve.points[index] for index in sorted(generator.integers(0, max(number, 1), number))]
    return attrs.evolve(curve, points=tuple(dict.fromkeys(drawn))), drawn


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), (0.025, 0.975))
    return float(low), float(high)
