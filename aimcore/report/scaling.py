"""How a loss falls with size, samples and compute: the points of a study of scaling, and the best size per budget.

arXiv:2411.14402, section 3.1 and Figure 2, which follow "Approach 1" of arXiv:2203.15556: the sizes are fixed, and each
is trained, to the end of its schedule, on several numbers of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import attrs

from aimcore.report.summary import ExperimentSummary, ScalingSummary, Summary

_BUDGETS = 200
"""Budgets, evenly spaced in the logarithm, at which the sizes are compared for :func:`best_sizes`."""


@attrs.frozen
class Point:
    """One trained model."""

    experiment: str
    parameters: int
    """Of the trunk."""
    samples: int
    flops: int
    loss: float


@attrs.frozen
class Curve:
    """One size, trained on several numbers of samples."""

    name: str
    points: tuple[Point, ...]
    """From the least compute to the most."""
    others: tuple[Point, ...] = ()
    """Models that did not come to the end of a schedule: shown, and in nothing that is computed."""

    def loss_at(self, flops: float) -> float | None:
        """The loss at a budget, linear between this size's points where both axes are logarithmic; None outside."""
        for one, other in pairwise(self.points):
            if one.flops <= flops <= other.flops:
                share = (
                    math.log(flops / one.flops) / math.log(other.flops / one.flops) if other.flops > one.flops else 0
                )
                return math.exp((1 - share) * math.log(one.loss) + share * math.log(other.loss))
        return next((point.loss for point in self.points if point.flops == flops), None)

    def best_within(self, flops: float) -> float | None:
        """The lowest loss that a budget buys: at it, or at a point that takes less; None below the first point."""
        losses = [point.loss for point in self.points if point.flops <= flops]
        at_it = self.loss_at(flops)
        return min([*losses, at_it] if at_it is not None else losses, default=None)


@attrs.frozen
class Scaled:
    """What a study of scaling measured."""

    loss: str
    """In words."""
    curves: tuple[Curve, ...]
    missing: tuple[tuple[str, str], ...]
    """Experiments that cannot be shown, and why."""


def scaled(summary: Summary) -> Scaled | None:
    """The points of a study; None where it is not one of scaling."""
    asked = summary.scaling
    if asked is None:
        return None
    missing = tuple(_missing(summary, asked))
    known = {name: _point(summary, asked, name) for name in _names(asked) if name not in dict(missing)}
    curves = (
        Curve(name, _sorted(known, names), _sorted(known, asked.others.get(name, ())))
        for name, names in asked.curves.items()
    )
    told = "weighted total of all losses" if asked.loss is None else asked.loss
    return Scaled(told, tuple(curve for curve in curves if curve.points or curve.others), missing)


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
            yield name, "it has not run"
        elif entry.status != "finished":
            yield name, "it failed" if entry.status == "failed" else "it was interrupted"
        elif entry.budget is None:
            yield name, "summary.json does not hold its budget"
        else:
            loss = _loss(entry, asked)
            if loss is None or not 0 < loss < math.inf:
                yield name, f"its validation loss is no positive number: {loss}"


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
    return Point(name, entry.budget.trunk_parameters, entry.budget.samples, entry.budget.flops, loss)


def envelope(curves: Sequence[Curve]) -> tuple[Point, ...]:
    """The points that no other size, interpolated, and no cheaper point beats: from the least compute to the most."""
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
    """The best size for every budget; what a size has at its last point counts for all larger budgets too."""
    flops = [point.flops for curve in curves for point in curve.points]
    if len(flops) < 2 or min(flops) == max(flops):
        return ()
    step = math.log(max(flops) / min(flops)) / (_BUDGETS - 1)
    budgets = [min(flops) * math.exp(number * step) for number in range(_BUDGETS)]
    found = [(budget, name) for budget in budgets if (name := _best_at(curves, budget)) is not None]
    ranges = ((name, [budget for budget, _ in part]) for name, part in groupby(found, key=lambda pair: pair[1]))
    return tuple(Best(name, part[0], part[-1]) for name, part in ranges)


def _best_at(curves: Sequence[Curve], budget: float) -> str | None:
    losses = {curve.name: loss for curve in curves if (loss := curve.best_within(budget)) is not None}
    return min(losses, key=lambda name: losses[name], default=None)
