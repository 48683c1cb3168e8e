"""What the report shows of a study of scaling, as values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from aimcore.report.scaling import Point, Scaled, marks_of, scaled
from aimcore.report.scaling_fit import Fit, fit
from aimcore.report.scaling_joint import JointFit, fit_joint
from aimcore.report.scaling_plots import draw_compute, draw_samples, series_of
from aimcore.report.scaling_table import law_lines
from aimcore.report.style import Drawn, Series
from aimcore.running.summary import Summary


@attrs.frozen(eq=False)
class Row:
    """A trained model in the table of points."""

    series: Series
    point: Point
    mark: str
    """Whether it is on the lower envelope, and whether the law is fitted to it."""


@attrs.frozen(eq=False)
class ScalingShown:
    """The section of a study of scaling."""

    loss: str
    figures: tuple[Drawn, ...]
    series: tuple[Series, ...]
    lines: tuple[str, ...]
    """The best sizes and the fitted law, in words."""
    rows: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]


def scaling_shown(summary: Summary, images: Path) -> ScalingShown | None:
    """Draw the figures of a study of scaling into ``images``; None for a study of anything else."""
    found = scaled(summary)
    if found is None:
        return None
    law, joint = fit(found.curves), fit_joint(found.curves)
    figures: tuple[Drawn, ...] = ()
    if any(curve.points for curve in found.curves):
        figures = (
            draw_samples(found.curves, joint if isinstance(joint, JointFit) else None, images),
            draw_compute(found.curves, law if isinstance(law, Fit) else None, images),
        )
    return ScalingShown(
        loss=found.loss,
        figures=figures,
        series=series_of(found.curves),
        lines=tuple(law_lines(found, law, joint)),
        rows=tuple(_rows(found)),
        missing=found.missing,
    )


def _rows(found: Scaled) -> Iterator[Row]:
    marks = marks_of(found.curves)
    for series, curve in zip(series_of(found.curves), found.curves, strict=True):
        yield from (Row(series, point, marks[point]) for point in curve.points)
        yield from (Row(series, point, "not fitted") for point in curve.others)
