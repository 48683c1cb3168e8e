"""A saturating power law through the best models of a scaling study, with intervals: L(C) = E + A (C / C0)^-a.

It is fitted along the lower envelope of the sizes: arXiv:2411.14402, Figure 2 (right), shows the loss for a budget with
the best size for it. A budget counts only if a size is better there than a smaller and a larger one
(:func:`aimcore.report.scaling.bracketed`). If nothing smaller or larger was trained, the lowest measured loss is not
the lowest for the budget, and a law through it has another exponent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np

from aimcore.report.scaling import Curve, Floats, Point, bracketed, frontier

MIN_POINTS = 5
"""Two more than the number of the law's parameters."""
EXPONENTS = (1e-2, 5.0)
"""Range in which exponents are searched. An interval that reaches an end does not bound the exponent."""
_GRID = 60


@attrs.frozen
class PowerLaw:
    """L(C) = floor + scale (C / reference)^-exponent."""

    floor: float
    scale: float
    exponent: float
    reference: float
    """Geometric mean of the points' FLOPs."""
    residual: float
    """Root of the mean squared relative error of L."""

    def loss(self, flops: Floats) -> Floats:
        """Return the law's loss at budgets."""
        return np.asarray(self.floor + self.scale * (flops / self.reference) ** -self.exponent)


@attrs.frozen
class Fit:
    """The law, its intervals, and the range of its budgets."""

    law: PowerLaw
    num_points: int
    exponent_ci95: tuple[float, float]
    floor_ci95: tuple[float, float]
    """The floors that belong to the exponents of ``exponent_ci95``."""
    budgets: tuple[float, float]


def fit(curves: Sequence[Curve]) -> Fit | str:
    """Fit the law to the bracketed models of ``curves`` by least squares of the relative error, or return why not.

    The interval contains the exponents whose best fit is not significantly worse (an F test, 95 %). It assumes that
    errors are independent and equally large in the logarithm.
    """
    parts, points = bracketed(curves), frontier(curves)
    if not parts:
        return (
            "at no budget is a size better than both a smaller and a larger one, so that the loss that a budget buys "
            f"with the best size is not known: {_hint(curves)}"
        )
    if len(points) < MIN_POINTS:
        return (
            f"{len(points)} model{'' if len(points) == 1 else 's'} at budgets that are bracketed by a smaller and a "
            f"larger size; a power law with a floor takes at least {MIN_POINTS}: train more sizes, or more numbers of "
            "samples"
        )
    law, interval = fit_points(points), exponent_interval(points)
    if interval[0] <= EXPONENTS[0] or interval[1] >= EXPONENTS[1]:
        return (
            f"the {len(points)} models at bracketed budgets do not bound the exponent (95 % interval "
            f"{interval[0]:.2g} to {interval[1]:.2g}, within the range that is searched): train more sizes, more "
            "numbers of samples, or several seeds"
        )
    floors = sorted(_solution(points, exponent)[1] for exponent in interval)
    return Fit(
        law=law,
        num_points=len(points),
        exponent_ci95=interval,
        floor_ci95=(floors[0], floors[1]),
        budgets=(min(part.low for part in parts), max(part.high for part in parts)),
    )


def _hint(curves: Sequence[Curve]) -> str:
    if sum(len(curve.points) > 1 for curve in curves) < 3:
        return "train at least three sizes"
    return "train further sizes, smaller or larger, or over a wider range of samples"


def fit_points(points: Sequence[Point]) -> PowerLaw:
    """Return the law with the least relative errors; it requires at least three points of different compute."""
    exponent = _best_exponent(points)
    cost, floor, scale = _solution(points, exponent)
    return PowerLaw(floor, scale, exponent, _reference(points), (cost / len(points)) ** 0.5)


def exponent_interval(points: Sequence[Point]) -> tuple[float, float]:
    """Return the 95 % interval of the exponent; it requires at least four points."""
    best = _best_exponent(points)
    return profile_interval(lambda exponent: _solution(points, exponent)[0], best, EXPONENTS, len(points) - 3)


def profile_interval(
    cost: Callable[[float], float], best: float, ends: tuple[float, float], freedom: int
) -> tuple[float, float]:
    """Return the range of values whose least squares are not significantly above the minimum, from an F test at 95 %.

    Args:
        cost: sum of squares, minimised over all other parameters.
        best: the value with the least sum.
        ends: the searched range; an end that belongs to the interval is returned.
        freedom: number of points less that of all parameters.
    """
    from scipy.optimize import brentq
    from scipy.stats import f

    limit = cost(best) * (1 + f.ppf(0.95, 1, freedom) / freedom)

    def crossing(end: float) -> float:
        if cost(end) <= limit:
            return end
        return float(brentq(lambda value: cost(value) - limit, best, end, xtol=1e-9)) if cost(best) < limit else best

    return crossing(ends[0]), crossing(ends[1])


def _best_exponent(points: Sequence[Point]) -> float:
    from scipy.optimize import minimize_scalar

    # Search a coarse grid first, because the cost may have several minima.
    grid = np.geomspace(*EXPONENTS, _GRID)
    place = int(np.argmin([_solution(points, float(exponent))[0] for exponent in grid]))
    near = (float(grid[max(place - 1, 0)]), float(grid[min(place + 1, _GRID - 1)]))
    found = minimize_scalar(
        lambda exponent: _solution(points, exponent)[0], bounds=near, method="bounded", options={"xatol": 1e-9}
    )
    return float(found.x)


def _solution(points: Sequence[Point], exponent: float) -> tuple[float, float, float]:
    """Return cost, floor and scale of the best law with an exponent: a linear problem with non-negative unknowns."""
    from scipy.optimize import nnls

    flops, losses = (np.array([getattr(one, name) for one in points], dtype=np.float64) for name in ("flops", "loss"))
    powers = (flops / _reference(points)) ** -exponent
    (floor, scale), norm = nnls(
        np.stack([np.ones_like(losses), powers], axis=1) / losses[:, None], np.ones_like(losses)
    )
    return float(norm) ** 2, float(floor), float(scale)


def _reference(points: Sequence[Point]) -> float:
    return float(np.exp(np.mean([np.log(float(point.flops)) for point in points])))
