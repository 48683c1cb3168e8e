"""What a study of scaling found, in tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.report.scaling import Curve, Scaled, best_sizes, envelope, scaled
from aimcore.report.scaling_fit import NUM_RESAMPLES, Fit, fit
from aimcore.report.scaling_plots import shortened_number
from aimcore.report.summary import Summary


def print_scaling(summary: Summary, console: Console) -> None:
    """Print the points and the fit; nothing for a study of anything else."""
    found = scaled(summary)
    if found is None:
        return
    console.print(points_table(found))
    for line in (*best_lines(found), *fit_lines(fit(found.curves)), *missing_lines(found)):
        console.print(f"* {line}", highlight=False, markup=False)


def points_table(found: Scaled) -> Table:
    """One row per trained model, those on the lower envelope marked."""
    title = f"Scaling: validation loss ({found.loss})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("size", overflow="fold")
    for heading in ("trunk", "samples", "FLOP", "loss"):
        table.add_column(heading, justify="right")
    table.add_column("best for its budget")
    best = envelope(found.curves)
    for curve in found.curves:
        for point in curve.points:
            mark = "yes" if point in best else ""
            table.add_row(curve.name, *_numbers(curve, point.experiment), mark)
        for point in curve.others:
            table.add_row(curve.name, *_numbers(curve, point.experiment), "not fitted")
    return table


def _numbers(curve: Curve, experiment: str) -> tuple[str, str, str, str]:
    point = next(one for one in (*curve.points, *curve.others) if one.experiment == experiment)
    return (
        shortened_number(point.parameters), shortened_number(point.samples), f"{point.flops:.2e}", f"{point.loss:.4f}"
    )  # fmt: skip


def best_lines(found: Scaled) -> Iterator[str]:
    """In words, which size is best for which budget."""
    best = best_sizes(found.curves)
    if best:
        told = ", ".join(f"{part.curve} from {part.low:.2g}" for part in best)
        yield f"Best size by budget in FLOP (beyond its last point, a size keeps what it has there): {told}."


def fit_lines(found: Fit | str) -> Iterator[str]:
    """In words, the fitted law with its intervals, or why there is none."""
    if isinstance(found, str):
        yield f"No law is fitted: {found}."
        return
    law = found.law
    yield (
        f"Fitted to the {found.num_points} points of the lower envelope (least squares of log L): "
        f"L(C) = {law.floor:.4g} + {law.scale:.4g} (C / {law.reference:.3g})^-{law.exponent:.3g}; "
        f"RMS error of log L {law.residual:.2g}."
    )
    if found.exponent_ci95 is None or found.floor_ci95 is None:
        yield (
            f"No intervals: only {found.num_resamples} of {NUM_RESAMPLES} resamples have enough points on their "
            "envelope."
        )
        return
    yield (
        f"95 % intervals: exponent {_range(found.exponent_ci95)}, floor {_range(found.floor_ci95)} "
        f"({found.num_resamples} of {NUM_RESAMPLES} bootstrap resamples of each size's trained models, fixed seed; one "
        "seed per model, so the noise between seeds is not in them)."
    )


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def missing_lines(found: Scaled) -> Iterator[str]:
    """In words, what is not there."""
    for name, reason in found.missing:
        yield f"{name} is no point: {reason}."
