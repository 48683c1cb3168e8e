"""The joint law of size and samples of arXiv:2203.15556 (approach 3), with intervals: L(N, D) = E + A / N^a + B / D^b.

N is the trunk's number of parameters and D the number of samples. All trained models count, and no budget needs a
bracket, but the form is an assumption. Estimates are theirs: the sum of Huber losses (threshold 1e-3) of the error of
log L, minimised by L-BFGS from a grid of starts. Departures: exponents are never negative; N and D are divided by their
geometric means, which only rescales A and B; each start has the best E, A and B for its exponents. Intervals come from
an F test of least squares, where theirs resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import attrs
import numpy as np

from aimcore.report.scaling import Curve, Floats, Point
from aimcore.report.scaling_fit import profile_interval

MIN_SIZES = 3
MIN_POINTS = 8
"""Three more than the number of the law's parameters."""
EXPONENTS = (1e-2, 3.0)
"""Range in which exponents are searched. An interval that reaches an end does not bound the exponent."""
_HUBER = 1e-3
_GRID = 8
_NUM_STARTS = 3
"""Number of pairs of exponents in the grid with the least squares, from which the search starts."""


@attrs.frozen
class JointLaw:
    """L(N, D) = floor + size_scale (N / N0)^-size_exponent + sample_scale (D / D0)^-sample_exponent."""

    floor: float
    size_scale: float
    size_exponent: float
    sample_scale: float
    sample_exponent: float
    reference: tuple[float, float]
    """N0 and D0: the geometric means."""
    residual: float
    """Root of the mean squared error of log L."""

    @property
    def budget_exponent(self) -> float:
        """Exponent of the reducible loss in compute, with the best size per budget, if FLOPs grow with N times D."""
        return self.size_exponent * self.sample_exponent / (self.size_exponent + self.sample_exponent)

    def loss(self, parameters: Floats, samples: Floats) -> Floats:
        """Return the law's loss of models."""
        size = self.size_scale * (parameters / self.reference[0]) ** -self.size_exponent
        return np.asarray(
            self.floor + size + self.sample_scale * (samples / self.reference[1]) ** -self.sample_exponent
        )


@attrs.frozen
class JointFit:
    """The law and its intervals."""

    law: JointLaw
    num_points: int
    size_ci95: tuple[float, float]
    sample_ci95: tuple[float, float]
    budget_ci95: tuple[float, float]


def fit_joint(curves: Sequence[Curve]) -> JointFit | str:
    """Fit the law to all models of ``curves``, or return why not."""
    points = [point for curve in curves for point in curve.points]
    sizes, samples = ({getattr(point, name) for point in points} for name in ("parameters", "samples"))
    if min(len(sizes), len(samples)) < MIN_SIZES or len(points) < MIN_POINTS:
        return (
            f"five parameters take at least {MIN_POINTS} models, {MIN_SIZES} sizes and {MIN_SIZES} numbers of samples; "
            f"found {len(points)}, {len(sizes)} and {len(samples)}"
        )
    problem = _Problem(points)
    law = problem.law(min((problem.search(start) for start in problem.starts()), key=lambda found: found[0])[1])
    intervals = problem.intervals()
    unbound = [
        f"{name} {low:.2g} to {high:.2g}"
        for name, (low, high) in zip(("size", "samples"), intervals[:2], strict=True)
        if low <= EXPONENTS[0] or high >= EXPONENTS[1]
    ]
    if unbound:
        return (
            f"the {len(points)} models do not bound its exponents (95 % intervals, within the range that is searched: "
            f"{', '.join(unbound)}): train over wider ranges of sizes and samples, or several seeds"
        )
    # Least squares and Huber's loss weight models differently; an interval without the estimate would confuse.
    estimates = (law.size_exponent, law.sample_exponent, law.budget_exponent)
    size, sample, budget = (
        (min(low, value), max(high, value)) for value, (low, high) in zip(estimates, intervals, strict=True)
    )
    return JointFit(law, len(points), size, sample, budget)


class _Problem:
    """The models, as logarithms relative to their means."""

    def __init__(self, points: Sequence[Point]) -> None:
        columns = (
            np.array([float(getattr(one, name)) for one in points]) for name in ("parameters", "samples", "loss")
        )
        sizes, samples, self.log_losses = (np.log(column) for column in columns)
        self.means = float(sizes.mean()), float(samples.mean())
        self.sizes, self.samples = sizes - self.means[0], samples - self.means[1]
        self.losses = np.exp(self.log_losses)

    def solution(self, size_exponent: float, sample_exponent: float) -> tuple[float, Floats]:
        """Return the sum of squared relative errors, floor and scales: a linear problem with non-negative unknowns."""
        from scipy.optimize import nnls

        parts = [
            np.ones_like(self.losses), np.exp(-size_exponent * self.sizes), np.exp(-sample_exponent * self.samples)
        ]  # fmt: skip
        found, norm = nnls(np.stack(parts, axis=1) / self.losses[:, None], np.ones_like(self.losses))
        return float(norm) ** 2, np.asarray(found)

    def starts(self) -> list[Floats]:
        """Return logarithms of floor and scales, and the exponents, for the best pairs of a grid of exponents."""
        grid = [float(value) for value in np.geomspace(0.03, 2.0, _GRID)]
        ranked = sorted(product(grid, grid), key=lambda pair: self.solution(*pair)[0])[:_NUM_STARTS]
        tiny = 1e-6 * float(self.losses.min())
        return [np.array([*np.log(np.maximum(self.solution(*pair)[1], tiny)), *pair]) for pair in ranked]

    def search(self, start: Floats) -> tuple[float, Floats]:
        """Return the least sum of Huber losses from a start, and its parameters."""
        from scipy.optimize import minimize

        bounds = [(None, None)] * 3 + [EXPONENTS] * 2
        options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 2000, "maxcor": 20}
        found = minimize(self._huber, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return float(found.fun), np.asarray(found.x)

    def law(self, values: Floats) -> JointLaw:
        """Return the law with the given parameters."""
        logs, size_exponent, sample_exponent = values[:3], float(values[3]), float(values[4])
        floor, size_scale, sample_scale = (float(value) for value in np.exp(logs))
        errors = self._errors(values)[0]
        means = (math.exp(self.means[0]), math.exp(self.means[1]))
        residual = float(np.sqrt(np.mean(errors**2)))
        return JointLaw(floor, size_scale, size_exponent, sample_scale, sample_exponent, means, residual)

    def _errors(self, values: Floats) -> tuple[Floats, Floats]:
        """Return errors of log L, and their derivatives by the five parameters."""
        floor, size, sample, size_exponent, sample_exponent = values
        terms = np.exp([
            np.full_like(self.sizes, floor), size - size_exponent * self.sizes, sample - sample_exponent * self.samples
        ])  # fmt: skip
        total = terms.sum(0)
        share = terms / total
        slopes = np.stack([*share, -self.sizes * share[1], -self.samples * share[2]])
        return np.log(total) - self.log_losses, slopes

    def _huber(self, values: Floats) -> tuple[float, Floats]:
        """Return the objective in units of its threshold, and its gradient."""
        errors, slopes = self._errors(values)
        scaled = errors / _HUBER
        inside = np.clip(scaled, -1, 1)
        # s^2 / 2 inside the threshold and |s| - 1/2 outside.
        return float(np.sum(inside * (scaled - inside / 2))), slopes @ inside / _HUBER

    def intervals(self) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
        """Return 95 % intervals of the exponents of size, samples and budget."""
        size, sample = self._least_squares()
        budget, freedom, (low, high) = size * sample / (size + sample), len(self.losses) - 5, EXPONENTS

        def by_size(value: float) -> float:
            return self._least(lambda other: (value, other), EXPONENTS)

        def by_sample(value: float) -> float:
            return self._least(lambda other: (other, value), EXPONENTS)

        def by_budget(value: float) -> float:
            # a b / (a + b) is the value for a = value (1 + ratio) and b = value (1 + 1 / ratio), neither above `high`.
            ratio = high / value - 1
            return self._least(lambda ratio: (value * (1 + ratio), value * (1 + 1 / ratio)), (1 / ratio, ratio))

        return (
            profile_interval(by_size, size, EXPONENTS, freedom),
            profile_interval(by_sample, sample, EXPONENTS, freedom),
            profile_interval(by_budget, budget, (low / 2, 0.49 * high), freedom),
        )

    def _least(self, exponents: Callable[[float], tuple[float, float]], ends: tuple[float, float]) -> float:
        """Return the least sum of squares over one positive value that gives both exponents."""
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(
            lambda value: self.solution(*exponents(math.exp(value)))[0],
            bounds=(math.log(ends[0]), math.log(ends[1])),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return float(found.fun)

    def _least_squares(self) -> tuple[float, float]:
        """Return the exponents with the least sum of squares."""
        from scipy.optimize import minimize

        start = np.log(self.starts()[0][3:])
        options = {"xatol": 1e-8, "fatol": 0.0, "maxiter": 400}
        found = minimize(
            lambda logs: self.solution(*np.exp(logs))[0], start, method="Nelder-Mead", options=options,
            bounds=[tuple(np.log(EXPONENTS))] * 2,
        )  # fmt: skip
        return float(np.exp(found.x[0])), float(np.exp(found.x[1]))
