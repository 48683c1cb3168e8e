"""The results of a scaling study, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.report.accuracy_loss import accuracies_by_loss
from aimcore.report.scaling import Curve, ScalingResults, best_sizes, marks_of, scaled
from aimcore.report.scaling_fit import Fit, fit
from aimcore.report.scaling_joint import JointFit, fit_joint
from aimcore.report.scaling_plots import shortened_number
from aimcore.running.summary import Summary


def print_scaling(summary: Summary, console: Console) -> None:
    """Print the points and the fit; nothing for any other study."""
    found = scaled(summary)
    if found is None:
        return
    console.print(points_table(found))
    accuracies = [one.line for one in accuracies_by_loss(summary, found)]
    for line in (*law_lines(found, fit(found.curves), fit_joint(found.curves)), *accuracies, *missing_lines(found)):
        console.print(f"* {line}", highlight=False, markup=False)


def points_table(found: ScalingResults) -> Table:
    """Return a table with a row per trained model; it marks those on the lower envelope and those of the fit."""
    title = f"Scaling: validation loss ({found.loss})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("size", overflow="fold")
    for heading in ("trunk", "samples", "FLOP", "loss"):
        table.add_column(heading, justify="right")
    table.add_column("best for its budget")
    marks = marks_of(found.curves)
    for curve in found.curves:
        for point in curve.points:
            table.add_row(curve.name, *_numbers(curve, point.experiment), marks[point])
        for point in curve.others:
            table.add_row(curve.name, *_numbers(curve, point.experiment), "not fitted")
    return table


def _numbers(curve: Curve, experiment: str) -> tuple[str, str, str, str]:
    point = next(one for one in (*curve.points, *curve.others) if one.experiment == experiment)
    return (
        shortened_number(point.parameters), shortened_number(point.samples), f"{point.flops:.2e}", f"{point.loss:.4f}"
    )  # fmt: skip


def law_lines(found: ScalingResults, law: Fit | str, joint: JointFit | str) -> Iterator[str]:
    """Yield everything that was computed of a study, as sentences."""
    yield from best_lines(found)
    yield from fit_lines(law)
    yield from joint_lines(joint)


def best_lines(found: ScalingResults) -> Iterator[str]:
    """Describe which size is best for which budget."""
    best = best_sizes(found.curves)
    if best:
        text = ", ".join(f"{part.curve} from {part.low:.2g}" for part in best)
        yield f"Best by budget in FLOP, among the sizes trained there (at least two): {text}."


def fit_lines(found: Fit | str) -> Iterator[str]:
    """Describe the law along the envelope with its intervals, or say why it was not fitted."""
    if isinstance(found, str):
        yield f"No law is fitted to the lower envelope: {found}."
        return
    law = found.law
    yield (
        f"Fitted to the {found.num_points} models at budgets that a smaller and a larger size bracket, "
        f"{_range(found.budgets)} FLOP (least squares of the relative error): "
        f"L(C) = {law.floor:.4g} + {law.scale:.4g} (C / {law.reference:.3g})^-{law.exponent:.3g}; "
        f"RMS relative error {law.residual:.2g}."
    )
    yield (
        f"95 % intervals: exponent {_range(found.exponent_ci95)}, floor {_range(found.floor_ci95)} (F test; errors of "
        "the models are taken to be independent and equally large, one seed each)."
    )


def joint_lines(found: JointFit | str) -> Iterator[str]:
    """Describe the joint law of size and samples with its intervals, or say why it was not fitted."""
    if isinstance(found, str):
        yield f"No joint law of size and samples is fitted: {found}."
        return
    law = found.law
    yield (
        f"Joint law of size N and samples D (arXiv:2203.15556, approach 3), fitted to all {found.num_points} models: "
        f"L(N, D) = {law.floor:.4g} + {law.size_scale:.4g} (N / {law.reference[0]:.3g})^-{law.size_exponent:.3g} + "
        f"{law.sample_scale:.4g} (D / {law.reference[1]:.3g})^-{law.sample_exponent:.3g}; RMS error of log L "
        f"{law.residual:.2g}."
    )
    yield (
        f"95 % intervals: size {_range(found.size_ci95)}, samples {_range(found.sample_ci95)}. With the "
        "best size for each budget, and FLOP in proportion to N times D, the loss above the floor then falls as "
        f"C^-{law.budget_exponent:.3g} ({_range(found.budget_ci95)})."
    )


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def missing_lines(found: ScalingResults) -> Iterator[str]:
    """Describe what is missing."""
    for name, reason in found.missing:
        yield f"{name} is not a point: {reason}."
