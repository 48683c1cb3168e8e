"""Figures of a scaling study: the loss against samples, and against compute (arXiv:2411.14402, Figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from aimcore.report.scaling import Best, Curve, Point, best_sizes
from aimcore.report.scaling_fit import Fit
from aimcore.report.scaling_joint import JointFit
from aimcore.report.style import LIGHT, WIDTH, DrawnFigure, Series, figure, finished

_HEIGHT = 3.3
_TICKS = 1000
"""From this value on, numbers are shortened: 12k, 3.4M."""
_DECADES = 200.0
"""A budget axis with a smaller range has more ticks than one per power of ten."""


def draw_samples(curves: Sequence[Curve], joint: JointFit | None, folder: Path) -> DrawnFigure:
    """Draw the loss by samples seen, one line per size, and the joint law for each size."""
    with figure(WIDTH, _HEIGHT) as drawn:
        axes = drawn.subplots()
        _draw_curves(axes, curves, lambda point: point.samples)
        lines = [] if joint is None else _draw_joint(axes, curves, joint)
        _finish_axes(axes, "samples seen", shortened_number)
        return finished(
            drawn,
            "scaling-samples",
            alt=f"Validation loss by samples seen: {_curves_text(curves)}.",
            folder=folder,
            title="Loss against samples",
            before_png=lambda: _legend(drawn, curves, lines),
        )


def draw_compute(curves: Sequence[Curve], fit: Fit | None, folder: Path) -> DrawnFigure:
    """Draw the loss by training compute, one line per size, the best size per budget, and the fitted law."""
    with figure(WIDTH, _HEIGHT) as drawn:
        axes = drawn.subplots()
        best = best_sizes(curves)
        _draw_best(axes, curves, best)
        _draw_curves(axes, curves, lambda point: point.flops)
        lines = [Line2D([], [], color=LIGHT["muted"], linewidth=6, alpha=0.25, label="best of the sizes there")]
        if fit is not None:
            budgets = np.geomspace(*fit.budgets, 100)
            lines += axes.plot(
                budgets,
                fit.law.loss(budgets),
                color=LIGHT["ink"],
                dashes=(4, 2),
                linewidth=1.1,
                zorder=4,
                label="fitted law",
            )
        _finish_axes(axes, "training compute, FLOP", lambda value: f"{value:.0e}".replace("e+", "e"))
        return finished(
            drawn,
            "scaling-compute",
            alt=(
                f"Validation loss by training compute: {_curves_text(curves)}. Best size by budget: {_best_text(best)}."
            ),
            folder=folder,
            title="Loss against compute",
            before_png=lambda: _legend(drawn, curves, lines),
        )


def series_of(curves: Sequence[Curve]) -> tuple[Series, ...]:
    """Return the look of each size in both figures."""
    return tuple(Series(curve.name, number) for number, curve in enumerate(curves))


def shortened_number(value: float) -> str:
    """Format a number with a suffix instead of zeros: 12k, 3.4M, 5B."""
    for suffix in ("", "k", "M", "B"):
        if value < _TICKS:
            return f"{value:.3g}{suffix}"
        value /= _TICKS
    return f"{value:.3g}T"


def _draw_curves(axes: Axes, curves: Sequence[Curve], budget: Callable[[Point], int]) -> None:
    for series, curve in zip(series_of(curves), curves, strict=True):
        places, losses = [budget(point) for point in curve.points], [point.loss for point in curve.points]
        dashes = series.dashes or (None, None)
        axes.plot(places, losses, color=series.colour, dashes=dashes, linewidth=1.6, marker="o", markersize=4, zorder=3)
        for point in curve.others:
            axes.plot(budget(point), point.loss, "o", color=series.colour, markerfacecolor="none", markersize=6)


def _draw_joint(axes: Axes, curves: Sequence[Curve], joint: JointFit) -> list[Line2D]:
    """Draw the joint law for each size, over the samples that it was trained on."""
    lines: list[Line2D] = []
    for curve in curves:
        if len(curve.points) > 1:
            samples = np.geomspace(float(curve.points[0].samples), float(curve.points[-1].samples), 50)
            losses = joint.law.loss(np.full_like(samples, float(curve.points[0].parameters)), samples)
            lines = axes.plot(
                samples, losses, color=LIGHT["ink"], dashes=(1, 2), linewidth=1.1, zorder=4, label="joint law"
            )
    return lines


def _draw_best(axes: Axes, curves: Sequence[Curve], best: Sequence[Best]) -> None:
    """Draw a broad band below the lowest curve of each budget, in that curve's colour."""
    by_name = {curve.name: (series, curve) for series, curve in zip(series_of(curves), curves, strict=True)}
    for part in best:
        series, curve = by_name[part.curve]
        budgets = np.geomspace(part.low, part.high, 30)
        reached = [(budget, loss) for budget in budgets if (loss := curve.loss_at(float(budget))) is not None]
        places, losses = [budget for budget, _ in reached], [loss for _, loss in reached]
        axes.plot(places, losses, color=series.colour, linewidth=7, alpha=0.25, solid_capstyle="butt")


def _finish_axes(axes: Axes, label: str, format_value: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("validation loss")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _DECADES * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=()))


def _legend(drawn: Figure, curves: Sequence[Curve], more: Sequence[Line2D]) -> None:
    """Draw the legend, so that the PNG can be read alone; the page has it as text."""
    lines = [
        Line2D([], [], color=series.colour, dashes=series.dashes or (None, None), marker="o", label=series.label)
        for series in series_of(curves)
    ]
    if any(curve.others for curve in curves):
        lines.append(
            Line2D(
                [], [], marker="o", linestyle="none", color=LIGHT["muted"], markerfacecolor="none", label="not fitted"
            )
        )
    lines += more
    width, height = drawn.get_size_inches()
    drawn.set_size_inches(width, height + 0.22 * -(-len(lines) // 3) + 0.1)
    drawn.legend(handles=lines, loc="outside lower left", ncols=3, fontsize=9, handlelength=3.2)


def _curves_text(curves: Sequence[Curve]) -> str:
    """Describe the ends of each curve."""
    return "; ".join(
        f"{curve.name} from {curve.points[0].loss:.4g} to {curve.points[-1].loss:.4g}"
        for curve in curves
        if curve.points
    )


def _best_text(best: Sequence[Best]) -> str:
    return ", ".join(f"{part.curve} from {part.low:.2g} FLOP" for part in best) or "none"
