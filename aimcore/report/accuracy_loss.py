"""Accuracy of probes against the validation loss in a scaling study (arXiv:2401.08541, Figures 1 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import numpy as np

from aimcore.report.scaling import Floats, ScalingResults
from aimcore.report.scaling_plots import series_of
from aimcore.report.style import WIDTH, DrawnFigure, figure, finished, legend_below
from aimcore.running.summary import Summary

FEWEST_MODELS = 3
"""Two points always lie on a line."""


@attrs.frozen(eq=False)
class AccuracyByLoss:
    """One probe's accuracy on the trained trunks, and their validation losses."""

    probe: str
    curves: Mapping[str, Floats]
    """By size: losses and accuracies as fractions, ``[2, n]``, by rising compute."""
    pearson: float | None
    """Correlation of loss and accuracy; None if all losses or all accuracies are equal."""
    spearman: float | None
    """Correlation of their ranks; -1 if every lower loss comes with a higher accuracy."""

    @property
    def num_models(self) -> int:
        """Number of points."""
        return sum(points.shape[1] for points in self.curves.values())

    @property
    def line(self) -> str:
        """The correlations in a sentence."""
        given = [("Pearson", self.pearson), ("Spearman", self.spearman)]
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in given if value is not None)
        numbers = numbers or "not defined, as all losses or all accuracies are equal"
        return f"{self.probe}: correlation of validation loss and accuracy over {self.num_models} models: {numbers}"


def accuracies_by_loss(summary: Summary, found: ScalingResults) -> Iterator[AccuracyByLoss]:
    """Yield one entry per probe that was measured on at least three models; models that are not fitted do not count."""
    entries = {entry.name: entry for entry in summary.experiments}
    names = dict.fromkeys(
        probe for curve in found.curves for point in curve.points for probe in entries[point.experiment].probes or {}
    )
    for probe in names:
        curves = {}
        for curve in found.curves:
            scores = [(point.loss, (entries[point.experiment].probes or {}).get(probe)) for point in curve.points]
            pairs = [(loss, score.top1) for loss, score in scores if score is not None]
            if pairs:
                curves[curve.name] = np.array(pairs, dtype=np.float64).T
        joined = np.concatenate(list(curves.values()), axis=1)
        if joined.shape[1] >= FEWEST_MODELS:
            yield AccuracyByLoss(probe, curves, *_correlations(*joined))


def _correlations(losses_N: Floats, accuracies_N: Floats) -> tuple[float | None, float | None]:
    """Return Pearson's and Spearman's coefficients."""
    from scipy.stats import pearsonr, spearmanr

    if len(set(losses_N)) == 1 or len(set(accuracies_N)) == 1:
        return None, None
    return (
        float(pearsonr(losses_N, accuracies_N).statistic),
        float(spearmanr(losses_N, accuracies_N).statistic),
    )


def draw_accuracy(shown: AccuracyByLoss, found: ScalingResults, name: str, folder: Path) -> DrawnFigure:
    """Draw accuracy by validation loss, one line per size; the loss falls to the right."""
    series = [one for one in series_of(found.curves) if one.name in shown.curves]
    with figure(WIDTH, 3.1) as drawn:
        axes = drawn.subplots()
        for one in series:
            losses, accuracies = shown.curves[one.name]
            dashes = one.dashes or (None, None)
            axes.plot(
                losses, 100 * accuracies, color=one.colour, dashes=dashes, marker="o", markersize=4, linewidth=1.6
            )
        axes.invert_xaxis()
        axes.set_xlabel(f"validation loss ({found.loss})")
        axes.set_ylabel("top-1 accuracy, %")
        return finished(
            drawn,
            name,
            alt=f"Accuracy of the probe {shown.line}.",
            folder=folder,
            title=f"Accuracy against loss: {shown.probe}",
            before_png=lambda: legend_below(drawn, tuple(series)),
        )
