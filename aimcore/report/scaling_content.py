"""The report's section of a scaling study, as values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from aimcore.report.accuracy_loss import accuracies_by_loss, draw_accuracy
from aimcore.report.scaling import Point, ScalingResults, marks_of, scaled
from aimcore.report.scaling_fit import Fit, fit
from aimcore.report.scaling_joint import JointFit, fit_joint
from aimcore.report.scaling_plots import draw_compute, draw_samples, series_of
from aimcore.report.scaling_table import law_lines
from aimcore.report.style import DrawnFigure, Series, slugs
from aimcore.running.summary import Summary


@attrs.frozen(eq=False)
class Row:
    """A row of the table of points: a trained model."""

    series: Series
    point: Point
    mark: str
    """Whether it is on the lower envelope, and whether the law is fitted to it."""


@attrs.frozen(eq=False)
class ScalingSection:
    """The section of a scaling study."""

    loss: str
    figures: tuple[DrawnFigure, ...]
    series: tuple[Series, ...]
    lines: tuple[str, ...]
    """Sentences on the best sizes, the fitted law, and the correlation of loss and accuracy."""
    rows: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]


def scaling_shown(summary: Summary, images: Path) -> ScalingSection | None:
    """Draw the figures of a scaling study into ``images``; return None for any other study."""
    found = scaled(summary)
    if found is None:
        return None
    law, joint = fit(found.curves), fit_joint(found.curves)
    figures: tuple[DrawnFigure, ...] = ()
    if any(curve.points for curve in found.curves):
        figures = (
            draw_samples(found.curves, joint if isinstance(joint, JointFit) else None, images),
            draw_compute(found.curves, law if isinstance(law, Fit) else None, images),
        )
    accuracies = tuple(accuracies_by_loss(summary, found))
    names = slugs([one.probe for one in accuracies])
    figures += tuple(draw_accuracy(one, found, f"accuracy-by-loss-{names[one.probe]}", images) for one in accuracies)
    return ScalingSection(
        loss=found.loss,
        figures=figures,
        series=series_of(found.curves),
        lines=(*law_lines(found, law, joint), *(one.line for one in accuracies)),
        rows=tuple(_rows(found)),
        missing=found.missing,
    )


def _rows(found: ScalingResults) -> Iterator[Row]:
    marks = marks_of(found.curves)
    for series, curve in zip(series_of(found.curves), found.curves, strict=True):
        yield from (Row(series, point, marks[point]) for point in curve.points)
        yield from (Row(series, point, "not fitted") for point in curve.others)
