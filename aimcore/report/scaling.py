"""How a loss falls with size, samples and compute: the points of a scaling study, and the best size per budget.

Source: arXiv:2411.14402, section 3.1 and Figure 2, which follow "Approach 1" of arXiv:2203.15556: the sizes are fixed,
and each is trained, to the end of its schedule, on several numbers of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.io.run_folder import SUMMARY_FILE
from aimcore.running.summary import ExperimentSummary, ScalingSummary, Summary

_BUDGETS = 200
"""Number of budgets, evenly spaced in the logarithm, at which sizes are compared."""

Floats = npt.NDArray[np.float64]


@attrs.frozen
class Point:
    """One trained model."""

    experiment: str
    parameters: int
    """Parameters of the trunk."""
    samples: int
    flops: int
    loss: float


@attrs.frozen
class Curve:
    """One size, trained on several numbers of samples."""

    name: str
    points: tuple[Point, ...]
    """Points from the least compute to the most."""
    others: tuple[Point, ...] = ()
    """Models whose schedule did not end: they are shown, but not used in any computation."""

    def loss_at(self, flops: float) -> float | None:
        """Return the loss at a budget, linear between points on logarithmic axes; None outside their range."""
        for one, other in pairwise(self.points):
            if one.flops <= flops <= other.flops:
                share = (
                    math.log(flops / one.flops) / math.log(other.flops / one.flops) if other.flops > one.flops else 0
                )
                return math.exp((1 - share) * math.log(one.loss) + share * math.log(other.loss))
        return next((point.loss for point in self.points if point.flops == flops), None)


@attrs.frozen
class ScalingResults:
    """The points of a scaling study."""

    loss: str
    """Description of the loss."""
    curves: tuple[Curve, ...]
    missing: tuple[tuple[str, str], ...]
    """Experiments that cannot be shown, with the reason."""


def scaled(summary: Summary) -> ScalingResults | None:
    """Return the points of a study, or None if it is not a scaling study."""
    asked = summary.scaling
    if asked is None:
        return None
    missing = tuple(_missing(summary, asked))
    known = {name: _point(summary, asked, name) for name in _names(asked) if name not in dict(missing)}
    curves = (
        Curve(name, _sorted(known, names), _sorted(known, asked.others.get(name, ())))
        for name, names in asked.curves.items()
    )
    description = "weighted total of all losses" if asked.loss is None else asked.loss
    return ScalingResults(description, tuple(curve for curve in curves if curve.points or curve.others), missing)


def _names(asked: ScalingSummary) -> Iterator[str]:
    for part in (asked.curves, asked.others):
        for names in part.values():
            yield from names


def _sorted(known: dict[str, Point], names: Sequence[str]) -> tuple[Point, ...]:
    return tuple(sorted((known[name] for name in names if name in known), key=lambda point: point.flops))


def _missing(summary: Summary, asked: ScalingSummary) -> Iterator[tuple[str, str]]:
    for name in _names(asked):
        entry = summary.of(name)
        if entry is None:
            yield name, "it did not run"
        elif entry.status != "finished":
            yield name, "it failed" if entry.status == "failed" else "it was interrupted"
        elif entry.budget is None:
            yield name, f"{SUMMARY_FILE} does not contain its budget"
        else:
            loss = _loss(entry, asked)
            if loss is None or not 0 < loss < math.inf:
                yield name, f"its validation loss is not a positive number: {loss}"


def _loss(entry: ExperimentSummary, asked: ScalingSummary) -> float | None:
    if asked.loss is None:
        return entry.validation_total
    known = (entry.losses or {}).get(asked.loss)
    return None if known is None else known.validation


def _point(summary: Summary, asked: ScalingSummary, name: str) -> Point:
    entry = summary.of(name)
    assert entry is not None
    assert entry.budget is not None
    loss = _loss(entry, asked)
    assert loss is not None
    return Point(name, entry.budget.trunk_parameters, int(entry.budget.samples), int(entry.budget.flops), loss)


def envelope(curves: Sequence[Curve]) -> tuple[Point, ...]:
    """Return the points that no other size, interpolated, and no cheaper point beats, by rising compute."""
    points = [point for curve in curves for point in curve.points]
    best = [
        point
        for curve in curves
        for point in curve.points
        if not any(other.flops <= point.flops and other.loss < point.loss for other in points)
        and not any(_beats(other, point) for other in curves if other is not curve)
    ]
    return tuple(sorted(best, key=lambda point: point.flops))


def _beats(curve: Curve, point: Point) -> bool:
    loss = curve.loss_at(point.flops)
    return loss is not None and loss < point.loss


@attrs.frozen
class Best:
    """A range of budgets, in FLOPs, for which one size has the lowest loss."""

    curve: str
    low: float
    high: float


def best_sizes(curves: Sequence[Curve]) -> tuple[Best, ...]:
    """Return the best size for every budget at which at least two sizes were trained; others allow no comparison."""
    flops = [point.flops for curve in curves for point in curve.points]
    if len(flops) < 2 or min(flops) == max(flops):
        return ()
    budgets = np.geomspace(float(min(flops)), float(max(flops)), _BUDGETS)
    found = [(float(budget), _best_at(curves, float(budget))) for budget in budgets]
    ranges = ((name, [budget for budget, _ in part]) for name, part in groupby(found, key=lambda pair: pair[1]))
    return tuple(Best(name, part[0], part[-1]) for name, part in ranges if name is not None)


def _best_at(curves: Sequence[Curve], budget: float) -> str | None:
    losses = {curve.name: loss for curve in curves if (loss := curve.loss_at(budget)) is not None}
    return min(losses, key=lambda name: losses[name]) if len(losses) > 1 else None


def bracketed(curves: Sequence[Curve]) -> tuple[Best, ...]:
    """Return the sizes that are best between a smaller and a larger one, and for which budgets.

    The range of a size starts where it overtakes the next smaller size, and ends where the next larger size overtakes
    it. Both changes must be at budgets that both sizes cover. The smallest and the largest size are never bracketed: a
    still smaller or larger one might be better at any of their budgets. Sizes that are never the best are left out.
    """
    sizes = sorted((curve for curve in curves if len(curve.points) > 1), key=lambda curve: curve.points[0].parameters)
    while True:
        changes = [_takeover(*pair) for pair in pairwise(sizes)]
        beaten = [
            number + 1
            for number, (begin, end) in enumerate(pairwise(changes))
            if begin is not None and end is not None and begin >= end
        ]
        if not beaten:
            break
        del sizes[beaten[0]]
    return tuple(
        Best(size.name, math.exp(begin), math.exp(end))
        for size, (begin, end) in zip(sizes[1:-1], pairwise(changes), strict=True)
        if begin is not None and end is not None and math.isfinite(begin) and math.isfinite(end)
    )


def _takeover(small: Curve, large: Curve) -> float | None:
    """Return the logarithm of the budget from which ``large`` is better; None if they share no budgets.

    It is the budget that separates their differences best, so that noise near the crossing moves it little: minus
    infinity if ``large`` is better at all shared budgets, and infinity if ``small`` is.
    """
    (small_x, small_y), (large_x, large_y) = _logarithms(small), _logarithms(large)
    low, high = max(small_x[0], large_x[0]), min(small_x[-1], large_x[-1])
    if low >= high:
        return None
    budgets = np.linspace(low, high, _BUDGETS)
    ahead = np.interp(budgets, large_x, large_y) - np.interp(budgets, small_x, small_y)
    gain = np.concatenate([[0.0], np.cumsum(ahead)])
    split = int(np.argmax(2 * gain - gain[-1]))
    if split in (0, _BUDGETS):
        return math.inf if split else -math.inf
    return float(budgets[split - 1] + budgets[split]) / 2


def _logarithms(curve: Curve) -> tuple[Floats, Floats]:
    """Return the budgets, each once and rising, and the mean log loss at each."""
    flops = np.log(np.array([point.flops for point in curve.points], dtype=np.float64))
    losses = np.log([point.loss for point in curve.points])
    different, which = np.unique(flops, return_inverse=True)
    return different, np.bincount(which, losses) / np.bincount(which)


def frontier(curves: Sequence[Curve]) -> tuple[Point, ...]:
    """Return the trained models of bracketed sizes at the budgets for which these are the best, by compute."""
    parts = {part.curve: part for part in bracketed(curves)}
    points = [
        point
        for curve in curves
        if (part := parts.get(curve.name)) is not None
        for point in curve.points
        if part.low <= point.flops <= part.high
    ]
    return tuple(sorted(points, key=lambda point: point.flops))


def marks_of(curves: Sequence[Curve]) -> dict[Point, str]:
    """Describe for the table whether each model is the best for its budget, and whether the law is fitted to it."""
    best, fitted = envelope(curves), frontier(curves)
    return {
        point: ", ".join(word for word, holds in (("yes", point in best), ("bracketed", point in fitted)) if holds)
        for curve in curves
        for point in curve.points
    }
