"""Figures of numbers: training curves, the loss along the sequence, probe scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from aimcore.report.run_records import Floats, LossCurve
from aimcore.report.style import LIGHT, WIDTH, DrawnFigure, Series, figure, finished, legend_below
from aimcore.running.summary import LayersSummary, ProbeSummary

Candidates = Sequence[LayersSummary]

MAX_POINTS = 500
"""Largest number of points of a curve in a figure: more make a page slow, and no screen shows them."""
_LOG_RATIO = 4.0
_UNTRAINED, _RAW_PIXELS, _PAPER = "o", "s", "D"
"""Markers of the baselines next to a trained trunk's score."""


def smoothed(values: Floats, window: int) -> Floats:
    """Return the mean over ``window`` values around each value; at the ends, over the existing ones."""
    kernel = np.ones(min(window, len(values)))
    sums = np.convolve(values, kernel, mode="same")
    return np.asarray(sums / np.convolve(np.ones_like(values), kernel, mode="same"))


def window_of(num_points: int) -> int:
    """Return the number of values that the smooth curve averages: an odd number, about a fortieth of them."""
    return max(1, num_points // 40 | 1)


def draw_training(loss: str, curves: Mapping[Series, LossCurve], name: str, folder: Path) -> DrawnFigure:
    """Draw a loss by step, one line per experiment: smoothed, with the logged values faintly below.

    Validation losses that were measured while training are drawn as points (arXiv:2401.08541, Figures 4 and 5).
    """
    with figure(WIDTH, 3.1) as drawn:
        axes = drawn.subplots()
        lines = []
        for series, curve in curves.items():
            every = -(-len(curve.steps) // MAX_POINTS)
            smooth = smoothed(curve.values, window_of(len(curve.values)))
            lines.append(smooth)
            steps = curve.steps[::every]
            axes.plot(steps, curve.values[::every], color=series.colour, alpha=0.22, linewidth=0.7, zorder=1)
            axes.plot(steps, smooth[::every], color=series.colour, dashes=series.dashes or (None, None), linewidth=1.6)
            if curve.validated is not None:
                lines.append(curve.validated[1])
                axes.plot(*curve.validated, color=series.colour, linestyle=":", linewidth=1.0, marker="o", markersize=4)
        scale = " (log)" if _has_log_scale(axes, lines) else ""
        axes.margins(x=0.015)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(f"loss per target{scale}")
        validated = any(curve.validated is not None for curve in curves.values())
        both = f"Training loss{' (lines) and validation loss (points)' if validated else ''}"
        return finished(
            drawn,
            name,
            alt=f"{both} {loss} by optimiser step; at the end of training {_ends(curves)}.",
            folder=folder,
            title=f"{both}: {loss}",
            before_png=lambda: legend_below(drawn, tuple(curves)),
        )


def _ends(curves: Mapping[Series, LossCurve]) -> str:
    last = {one.name: curve.values[-window_of(len(curve.values)) :].mean() for one, curve in curves.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in last.items())


def _has_log_scale(axes: Axes, lines: Sequence[Floats]) -> bool:
    """Use a logarithmic axis for smooth curves that fall by a lot, so that their ends can be distinguished."""
    values = np.concatenate(lines)
    low, high = float(values.min()), float(values.max())
    if low <= 0 or high / low <= _LOG_RATIO:
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(low / 1.15, high * 1.15)
    return True


def draw_chunks(loss: str, chunks: Mapping[Series, Floats], name: str, folder: Path) -> DrawnFigure:
    """Draw the validation loss in equal parts of the reading order (arXiv:2401.08541, Figure 7)."""
    number = max(len(values) for values in chunks.values())
    with figure(WIDTH, 3.1) as drawn:
        axes = drawn.subplots()
        for series, values in chunks.items():
            places = np.arange(1, len(values) + 1)
            dashes = series.dashes or (None, None)
            axes.plot(places, values, color=series.colour, dashes=dashes, linewidth=1.6, marker="o", markersize=3.5)
        axes.set_xlabel(f"part of the reading order (of {number})")
        axes.set_ylabel("validation loss per target")
        axes.set_xlim(0.5, number + 0.5)
        axes.set_xticks(range(1, number + 1, 1 if number <= 8 else 3))
        spread = ", ".join(f"{one.name} {np.nanmin(v):.3g} to {np.nanmax(v):.3g}" for one, v in chunks.items())
        return finished(
            drawn,
            name,
            alt=f"Validation loss {loss} in {number} equal parts of the reading order: {spread}.",
            folder=folder,
            title=f"Validation loss along the sequence: {loss}",
            before_png=lambda: legend_below(drawn, tuple(chunks)),
        )


def draw_scores(
    probe: str, scores: Mapping[Series, ProbeSummary], paper: Mapping[str, float], name: str, folder: Path
) -> DrawnFigure:
    """Draw the accuracies of one probe: a row per experiment, with its baselines.

    Args:
        probe: the probe's name.
        scores: scores by experiment.
        paper: the paper's scores, by experiment name.
        name: name of the file.
        folder: folder of the PNGs.
    """
    with figure(WIDTH, 1.3 + 0.32 * len(scores)) as drawn:
        axes = drawn.subplots()
        for row, (series, score) in enumerate(scores.items()):
            _draw_score(axes, row, series, score, paper.get(series.name))
        axes.set_yticks(range(len(scores)), [_row_label(series) for series in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("top-1 accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.grid(visible=False, axis="y")
        known = {series.name for series in scores} & set(paper)
        _legend_of_marks(drawn, scores.values(), with_paper=bool(known))
        text = ", ".join(f"{series.name} {100 * score.top1:.1f} %" for series, score in scores.items())
        alt = f"Accuracy of the probe {probe} on the trained trunk: {text}."
        return finished(drawn, name, alt=alt, folder=folder, title=f"Probe: {probe}")


def draw_layers(probe: str, scores: Mapping[Series, Candidates], name: str, folder: Path) -> DrawnFigure:
    """Draw the accuracy of one probe by block (arXiv:2401.08541, Figure 10): a line per experiment.

    A window of several blocks is drawn at its last block.

    Args:
        probe: the name of the score, such as ``"attentive@best_layer"``.
        scores: the sets of blocks that were probed, by experiment.
        name: name of the file.
        folder: folder of the PNGs.
    """
    with figure(WIDTH, 3.1) as drawn:
        axes = drawn.subplots()
        for series, candidates in scores.items():
            own = [one.layers[-1] for one in candidates]
            percent, dashes = [100 * one.top1 for one in candidates], series.dashes or (None, None)
            axes.plot(own, percent, color=series.colour, dashes=dashes, linewidth=1.6, marker="o", markersize=3.5)
            chosen = max(candidates, key=lambda one: one.held_out_top1)
            axes.plot(chosen.layers[-1], 100 * chosen.top1, "o", color=series.colour, markersize=8, fillstyle="none")
        axes.set_xlabel("block" if all(len(one.layers) == 1 for c in scores.values() for one in c) else "last block")
        axes.set_ylabel("top-1 accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        blocks = [one.layers[-1] for candidates in scores.values() for one in candidates]
        if min(blocks) == max(blocks):
            axes.set_xlim(blocks[0] - 1, blocks[0] + 1)
        text = ", ".join(_layers_text(series, candidates) for series, candidates in scores.items())
        return finished(
            drawn,
            name,
            alt=f"Accuracy of the probe {probe} by block: {text}.",
            folder=folder,
            title=f"Probe by block: {probe}",
            before_png=lambda: legend_below(drawn, tuple(scores)),
        )


def _layers_text(series: Series, candidates: Candidates) -> str:
    low, high = (100 * pick(one.top1 for one in candidates) for pick in (min, max))
    return f"{series.name} {low:.1f} to {high:.1f} %"


def _draw_score(axes: Axes, row: int, series: Series, score: ProbeSummary, paper: float | None) -> None:
    if score.interval95 is not None:
        axes.plot([100 * end for end in score.interval95], [row, row], color=series.colour, linewidth=2.2)
    axes.plot(100 * score.top1, row, "o", color=series.colour, markersize=7)
    for shape, other in ((_UNTRAINED, score.untrained_top1), (_RAW_PIXELS, score.raw_pixels_top1), (_PAPER, paper)):
        if other is not None:
            axes.add_line(_mark(shape, 100 * other, row))
    axes.autoscale_view()


def _mark(shape: str, score: float | None = None, row: int | None = None, label: str = "") -> Line2D:
    """Draw a hollow marker at a score, or for the legend."""
    colour = LIGHT["ink"] if shape == _PAPER else LIGHT["muted"]
    place = ([], []) if score is None or row is None else ([score], [row])
    return Line2D(
        *place, marker=shape, color=colour, linestyle="none", markerfacecolor="none", markersize=5.5, label=label
    )


def _legend_of_marks(drawn: Figure, scores: Collection[ProbeSummary], *, with_paper: bool) -> None:
    """Draw the legend of the markers below the rows, without markers that are not used."""
    known = {
        (_UNTRAINED, "untrained"): any(score.untrained_top1 is not None for score in scores),
        (_RAW_PIXELS, "raw pixels"): any(score.raw_pixels_top1 is not None for score in scores),
        (_PAPER, "paper"): with_paper,
    }
    marks = [Line2D([], [], marker="o", color=LIGHT["muted"], markersize=7, label="trained")]
    marks += [_mark(shape, label=label) for (shape, label), is_there in known.items() if is_there]
    drawn.legend(handles=marks, loc="outside lower left", ncols=4, fontsize=10, handletextpad=0.2, columnspacing=0.9)


def _row_label(series: Series) -> str:
    return series.label if len(series.label) <= 20 else f"{series.label[:9]}…{series.label[-9:]}"
