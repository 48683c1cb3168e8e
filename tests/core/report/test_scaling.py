"""A study of scaling: its points, its lower envelope, and the law through it, on losses that are known."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from rich.console import Console

from aimcore.report import ExperimentSummary, LossSummary, Summary, read_summary, write_summary
from aimcore.report.page import draw_report
from aimcore.report.scaling import Curve, Point, best_sizes, envelope, scaled
from aimcore.report.scaling_fit import MIN_POINTS, Fit, fit, fit_points
from aimcore.report.scaling_plots import shortened_number
from aimcore.report.scaling_table import print_scaling
from aimcore.report.summary import BudgetSummary, ScalingSummary


def curve(name: str, losses: Mapping[int, float]) -> Curve:
    """A curve by its FLOPs."""
    return Curve(name, tuple(Point(f"{name}-{flops}", 10, flops, flops, loss) for flops, loss in losses.items()))


def test_between_points_the_loss_is_linear_in_both_logarithms() -> None:
    one = curve("one", {100: 4.0, 10_000: 1.0})
    assert one.loss_at(1000) == pytest.approx(2.0)
    assert [one.loss_at(100), one.loss_at(10_000)] == pytest.approx([4.0, 1.0])


def test_nothing_is_extrapolated() -> None:
    one = curve("one", {100: 4.0, 10_000: 1.0})
    assert (one.loss_at(99), one.loss_at(10_001), curve("none", {}).loss_at(1)) == (None, None, None)


def test_the_envelope_leaves_out_what_another_size_beats_between_its_points() -> None:
    small = curve("small", {100: 4.0, 10_000: 2.0})
    # At 1,000 FLOP the small size has 2.83 between its points.
    large = curve("large", {1000: 2.9, 100_000: 1.0})
    assert [point.experiment for point in envelope([small, large])] == ["small-100", "large-100000"]
    better = curve("large", {1000: 2.8, 100_000: 1.0})
    # The better one in turn has 1.67 at 10,000 FLOP, where the small one has 2.
    assert [point.experiment for point in envelope([small, better])] == ["small-100", "large-1000", "large-100000"]


def test_the_envelope_leaves_out_what_is_worse_than_something_cheaper() -> None:
    rising = curve("one", {100: 2.0, 1000: 1.0, 2000: 1.5})
    assert [point.flops for point in envelope([rising])] == [100, 1000]


def test_the_best_size_changes_where_the_curves_cross() -> None:
    small, large = curve("small", {100: 4.0, 10_000: 2.0}), curve("large", {100: 8.0, 10_000: 1.0})
    first, second = best_sizes([small, large])
    # ln 4 - x ln 2 = ln 8 - x ln 8 where x = 1/2, at 1,000 FLOP.
    assert (first.curve, second.curve) == ("small", "large")
    assert first.high < 1000 < second.low
    assert second.low / first.high == pytest.approx(100 ** (1 / 199))


def test_a_size_that_costs_more_and_has_a_higher_loss_is_never_the_best() -> None:
    small, large = curve("small", {100: 4.0, 1000: 2.0}), curve("large", {150: 5.0, 1500: 2.1})
    assert [part.curve for part in best_sizes([small, large])] == ["small"]
    assert (small.best_within(1500), small.best_within(99)) == (2.0, None)


def law(flops: float, floor: float = 0.5, scale: float = 2.0, exponent: float = 0.3) -> float:
    return float(floor + scale * (flops / 1000) ** -exponent)


def test_a_law_is_found_again_in_points_that_follow_it() -> None:
    points = curve("one", {flops: law(flops) for flops in (10, 100, 1000, 10_000, 100_000, 1_000_000)}).points
    found = fit_points(points)
    assert (found.floor, found.exponent) == pytest.approx((0.5, 0.3), rel=1e-3)
    assert found.loss(np.array([1000.0]))[0] == pytest.approx(2.5, rel=1e-4)
    assert found.residual < 1e-6


def test_a_law_without_a_floor_is_found_again() -> None:
    points = curve("one", {flops: law(flops, floor=0.0) for flops in (10, 100, 1000, 10_000, 100_000)}).points
    found = fit_points(points)
    assert found.floor == pytest.approx(0.0, abs=0.02)
    assert found.exponent == pytest.approx(0.3, rel=0.02)


def test_a_point_that_counts_twice_is_a_point_given_twice() -> None:
    points = curve("one", {10: 4.0, 100: 3.1, 1000: 2.3, 10_000: 2.2}).points
    twice = fit_points((*points, points[1], points[1]))
    weighted = attrs.evolve(fit_points(points, [1, 3, 1, 1]), reference=twice.reference)
    assert weighted.floor == pytest.approx(twice.floor, rel=1e-3)
    assert weighted.exponent == pytest.approx(twice.exponent, rel=1e-3)


def several(noise: float = 0.0) -> list[Curve]:
    """Three sizes whose lower envelope follows the law, but for noise."""
    generator = np.random.default_rng(1)
    ranges = {"small": (1, 4), "middle": (3, 6), "large": (5, 8)}
    return [
        curve(
            name,
            {
                int(10**power): law(10**power) * (1 + abs(power - middle) / 50) * math.exp(noise * generator.normal())
                for power in np.linspace(low, high, 7)
                for middle in [(low + high) / 2]
            },
        )
        for name, (low, high) in ranges.items()
    ]


def test_intervals_hold_the_exponent_and_are_the_same_every_time() -> None:
    found, again = fit(several(0.01)), fit(several(0.01))
    assert isinstance(found, Fit)
    assert found.exponent_ci95 is not None
    assert found.exponent_ci95[0] < found.law.exponent < found.exponent_ci95[1]
    assert found == again


def test_more_noise_gives_wider_intervals() -> None:
    little, much = fit(several(0.001)), fit(several(0.03))
    assert isinstance(little, Fit)
    assert isinstance(much, Fit)
    assert little.exponent_ci95 is not None
    assert much.exponent_ci95 is not None
    assert np.diff(little.exponent_ci95)[0] < np.diff(much.exponent_ci95)[0]


def test_too_few_points_are_not_fitted() -> None:
    few = curve("one", {10**power: 1 / power for power in range(1, MIN_POINTS)})
    assert fit([few]) == (
        "4 points on the lower envelope; a power law with a floor takes at least 5: train more sizes, or more numbers "
        "of samples"
    )
    assert isinstance(fit([curve("one", {10**power: 1 / power for power in range(1, MIN_POINTS + 1)})]), Fit)


@pytest.mark.parametrize(
    ("value", "told"), [(80, "80"), (6740, "6.74k"), (1_234_567, "1.23M"), (5e9, "5B"), (1.2e13, "12T")]
)
def test_large_numbers_are_shortened(value: float, told: str) -> None:
    assert shortened_number(value) == told


def entry(name: str, flops: int, loss: float, **changes: object) -> ExperimentSummary:
    fields: dict[str, object] = {
        "status": "finished",
        "seed": 0,
        "losses": {"text": LossSummary(validation=2 * loss), "image": LossSummary(validation=loss)},
        "validation_total": 3 * loss,
        "budget": BudgetSummary(trunk_parameters=1000, parameters=2000, samples=flops // 10, flops=flops),
        "recipe": f"{name}/recipe.json",
    }
    return ExperimentSummary(name=name, **fields | changes)  # type: ignore[arg-type]


def summary(entries: Sequence[ExperimentSummary], loss: str | None = None) -> Summary:
    """A study with a curve of all entries but the last, which is not fitted."""
    *points, other = (one.name for one in entries)
    asked = ScalingSummary(curves={"small": tuple(points)}, others={"small": (other,)}, loss=loss)
    return Summary(study="scaling", scale="small", machine={}, scaling=asked, experiments=tuple(entries))


FALLING = [entry(f"s-{power}", 10**power, law(10**power)) for power in range(2, 9)]


def test_the_weighted_total_or_a_named_loss_is_compared() -> None:
    total, image = scaled(summary(FALLING)), scaled(summary(FALLING, "image"))
    assert total is not None
    assert image is not None
    assert total.curves[0].points[0].loss == pytest.approx(3 * law(100))
    assert image.curves[0].points[0].loss == pytest.approx(law(100))
    assert [point.experiment for point in image.curves[0].others] == ["s-8"]


def test_a_study_of_anything_else_has_no_points() -> None:
    assert scaled(attrs.evolve(summary(FALLING), scaling=None)) is None


def test_what_is_missing_is_told_and_the_rest_is_shown() -> None:
    entries = [
        *FALLING,
        entry("failed", 1, 1.0, status="failed"),
        entry("no-budget", 1, 1.0, budget=None),
        entry("no-loss", 1, 1.0, validation_total=None),
        entry("other", 1, 1.0),
    ]
    made = summary(entries)
    names = (*(one.name for one in entries[:-1]), "later")
    asked = ScalingSummary(curves={"small": names}, others={"small": ("other",)})
    found = scaled(attrs.evolve(made, scaling=asked))
    assert found is not None
    assert dict(found.missing) == {
        "failed": "it failed",
        "no-budget": "summary.json does not hold its budget",
        "no-loss": "its validation loss is no positive number: None",
        "later": "it has not run",
    }
    assert len(found.curves[0].points) == len(FALLING)


def test_a_summary_keeps_its_scaling_and_its_budgets(tmp_path: Path) -> None:
    made = summary(FALLING, "image")
    write_summary(made, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == made


def printed(made: Summary) -> str:
    buffer = io.StringIO()
    print_scaling(made, Console(file=buffer, width=80, no_color=True))
    return buffer.getvalue()


def test_the_terminal_tells_points_best_sizes_and_the_law() -> None:
    told = printed(summary(FALLING, "image"))
    words = " ".join(told.split())
    assert "Scaling: validation loss (image)" in words
    assert "(beyond its last point, a size keeps what it has there): small from 1e+02." in words
    assert "Fitted to the 6 points of the lower envelope (least squares of log L): L(C) = 0.5" in words
    assert "of 500 bootstrap resamples of each size's trained models, fixed seed" in words
    assert max(map(len, told.splitlines())) <= 80


def test_nothing_is_printed_of_a_study_of_anything_else() -> None:
    assert printed(attrs.evolve(summary(FALLING), scaling=None)) == ""


def test_the_report_has_both_figures_and_says_what_is_missing(tmp_path: Path) -> None:
    made = summary([*FALLING, entry("broken", 1, 1.0, status="interrupted"), entry("other", 500, 2.0)], "image")
    write_summary(made, tmp_path / "summary.json")
    text = draw_report(tmp_path).read_text(encoding="utf-8")
    assert {"scaling-samples.png", "scaling-compute.png"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert "<b>broken</b> is no point: it was interrupted." in text
    assert "Fitted to the 7 points of the lower envelope" in text


def test_a_report_without_a_scaling_study_has_no_such_section(tmp_path: Path) -> None:
    write_summary(attrs.evolve(summary(FALLING), scaling=None), tmp_path / "summary.json")
    assert 'id="scaling"' not in draw_report(tmp_path).read_text(encoding="utf-8")


def test_a_scaling_study_of_which_nothing_ran_says_so(tmp_path: Path) -> None:
    none = [entry("a", 1, 1.0, status="failed"), entry("b", 1, 1.0, status="failed")]
    write_summary(summary(none), tmp_path / "summary.json")
    text = draw_report(tmp_path).read_text(encoding="utf-8")
    assert "No law is fitted: 0 points on the lower envelope" in text
    assert "<b>a</b> is no point: it failed." in text
