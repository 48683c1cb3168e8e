"""The report's section of accuracy against the number of labels: figures, and a table on the terminal."""

from __future__ import annotations

from math import inf, log
from pathlib import Path
from statistics import fmean

import attrs
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.report.label_curves import LabelCurve, LabelGroup, label_groups
from aimcore.report.style import LIGHT, WIDTH, DrawnFigure, figure, finished, slugs
from aimcore.running.summary import Summary

_MARKERS = {"trained": "o", "untrained": "^", "raw pixels": "s"}

_LEAST_DISTANCE = 0.12
"""Least distance of two labels of the axis, as a share of its length."""


@attrs.frozen(eq=False)
class LabelSection:
    """The section of accuracy against the number of labels."""

    groups: tuple[LabelGroup, ...]
    figures: tuple[DrawnFigure, ...]
    """One per group."""


def labels_shown(summary: Summary, images: Path) -> LabelSection | None:
    """Draw the curves into ``images``; return None for a study without them."""
    groups = label_groups(summary)
    names = slugs([group.title for group in groups])
    figures = tuple(draw_labels(group, f"labels-{names[group.title].lower()}", images) for group in groups)
    return LabelSection(groups, figures) if groups else None


def draw_labels(group: LabelGroup, name: str, folder: Path) -> DrawnFigure:
    """Draw the mean accuracy of each curve by the number of labels per class, with the range over draws."""
    with figure(WIDTH, 3.2) as drawn:
        axes = drawn.subplots()
        for curve in group.curves:
            _draw_curve(axes, curve)
        axes.set_xscale("log")
        axes.set_xticks(group.numbers, labels=_tick_labels(group.numbers))
        axes.minorticks_off()
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.set_xlabel("labelled images per class (log)")
        axes.set_ylabel("top-1 accuracy, %")
        handles = [_line(curve) for curve in group.curves]
        columns = 2 if max(len(curve.name) for curve in group.curves) <= 26 else 1
        drawn.set_size_inches(WIDTH, 3.2 + 0.22 * -(-len(handles) // columns))
        drawn.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=10)
        ends = "; ".join(f"{curve.name} {_ends(curve)}" for curve in group.curves)
        alt = f"Accuracy by the number of labelled images per class. {ends}."
        return finished(drawn, name, alt=alt, folder=folder, title=group.title)


def _tick_labels(numbers: list[float]) -> list[str]:
    """Return the numbers as text, without those that would touch the number before them on a logarithmic axis."""
    least, kept, labels = _LEAST_DISTANCE * log(numbers[-1] / numbers[0]), -inf, []
    for number in numbers:
        is_clear = log(number) - kept >= least
        labels.append(f"{number:,.0f}" if is_clear else "")
        kept = log(number) if is_clear else kept
    return labels


def _draw_curve(axes: Axes, curve: LabelCurve) -> None:
    numbers = list(curve.draws)
    means = [100 * fmean(values) for values in curve.draws.values()]
    axes.add_line(_line(curve, numbers, means))
    for number, values in curve.draws.items():
        if len(values) > 1:
            ends = [100 * min(values), 100 * max(values)]
            axes.plot([number, number], ends, color=_colour(curve), linewidth=2.6, alpha=0.45, solid_capstyle="butt")
    axes.autoscale_view()


def _line(curve: LabelCurve, numbers: list[float] | None = None, means: list[float] | None = None) -> Line2D:
    is_trained = curve.kind == "trained"
    return Line2D(
        numbers or [],
        means or [],
        color=_colour(curve),
        linewidth=1.8 if is_trained else 1.2,
        dashes=(None, None) if is_trained else (3, 2),
        marker=_MARKERS[curve.kind],
        markersize=5,
        markerfacecolor=_colour(curve) if is_trained else "none",
        label=curve.name,
    )


def _colour(curve: LabelCurve) -> str:
    shared = curve.kind == "raw pixels" and curve.is_alone
    return LIGHT["muted"] if shared else curve.series.colour


def _ends(curve: LabelCurve) -> str:
    numbers = list(curve.draws)
    return ", ".join(f"{100 * fmean(curve.draws[number]):.1f} % at {number:,.0f}" for number in numbers)


def print_labels(summary: Summary, console: Console) -> None:
    """Print a table and the comparisons of each group of curves; nothing for a study without them."""
    for group in label_groups(summary):
        console.print(labels_table(group))
        for line in group.lines:
            console.print(f"* {line}", highlight=False, markup=False)


def labels_table(group: LabelGroup) -> Table:
    """Return a table with a row per curve: the mean accuracy over draws for each number of labels per class."""
    title = f"{group.title}: accuracy by labels per class, % (mean over draws)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("curve", overflow="fold")
    for number in group.numbers:
        table.add_column(f"{number:,.0f}", justify="right")
    for curve in group.curves:
        cells = [curve.draws.get(number) for number in group.numbers]
        table.add_row(curve.name, *("-" if values is None else f"{100 * fmean(values):.1f}" for values in cells))
    return table
