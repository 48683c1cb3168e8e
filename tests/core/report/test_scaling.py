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
from scipy.stats import binom

from aimcore.report import ExperimentSummary, LossSummary, Summary, read_summary, write_summary
from aimcore.report.page import draw_report
from aimcore.report.scaling import Curve, Point, best_sizes, bracketed, envelope, frontier, scaled
from aimcore.report.scaling_fit import Fit, fit, fit_points
from aimcore.report.scaling_joint import JointFit, fit_joint
from aimcore.report.scaling_plots import shortened_number
from aimcore.report.scaling_table import print_scaling
from aimcore.running.summary import BudgetSummary, ScalingSummary


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


def test_no_size_is_the_best_where_only_one_was_trained() -> None:
    small, large = curve("small", {100: 4.0, 1000: 2.0}), curve("large", {150: 5.0, 1500: 2.1})
    (best,) = best_sizes([small, large])
    assert (best.curve, best.low, best.high) == ("small", pytest.approx(150, rel=0.02), pytest.approx(1000, rel=0.02))
    apart = curve("apart", {2000: 1.0, 20_000: 0.5})
    assert best_sizes([curve("small", {100: 4.0, 1000: 2.0}), apart]) == ()


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


FLOOR, SIZES, SAMPLES = 0.3, (20, 0.34), (30, 0.28)
"""L = 0.3 + 20 / N^0.34 + 30 / D^0.28."""
TRUE_EXPONENT = 0.34 * 0.28 / (0.34 + 0.28)
"""Of the lower envelope in C = 6 N D: where a A / N^a = b B / D^b, both terms go with C^-(a b / (a + b))."""


def size(parameters: float, samples: Sequence[float], noise: float, generator: np.random.Generator) -> Curve:
    """One size, trained on several numbers of samples."""
    return Curve(
        f"{parameters:.4g}",
        tuple(
            Point(
                f"{parameters:.4g}-{number:.4g}",
                round(parameters),
                round(number),
                round(6 * parameters * number),
                (FLOOR + SIZES[0] / parameters ** SIZES[1] + SAMPLES[0] / number ** SAMPLES[1])
                * math.exp(noise * generator.normal()),
            )
            for number in samples
        ),
    )


def crossing_sizes(noise: float, generator: np.random.Generator) -> list[Curve]:
    """Five sizes from 30M to 7.7B, each on 1/30 to 30 times the number of samples that is best for it."""
    found = []
    for parameters in 3e7 * 4.0 ** np.arange(5):
        best = (SAMPLES[1] * SAMPLES[0] / (SIZES[1] * SIZES[0]) * parameters ** SIZES[1]) ** (1 / SAMPLES[1])
        found.append(size(parameters, np.geomspace(best / 30, best * 30, 9), noise, generator))
    return found


def aimv2_sizes(noise: float, generator: np.random.Generator) -> list[Curve]:
    """AIMv2's four sizes, each on seven numbers of samples from 0.48 to 6 billion: too few samples for any to cross."""
    samples = np.geomspace(0.48e9, 6e9, 7)
    return [size(parameters, samples, noise, generator) for parameters in (309.2e6, 680.9e6, 1235.0e6, 2720.7e6)]


def test_a_size_is_bracketed_from_where_it_takes_over_to_where_a_larger_one_does() -> None:
    # In x = log10 of the budget, log2 of the losses: 3 - x/2, 4.5 - x and 8.5 - 2 x, which cross at 3 and at 4.
    lines = {"small": (3.0, 0.5, 2, 5), "middle": (4.5, 1.0, 2, 5), "large": (8.5, 2.0, 3, 6)}
    sizes = [
        Curve(name, tuple(Point(f"{name}-{x}", number, 10**x, 10**x, 2 ** (start - slope * x)) for x in (low, high)))
        for number, (name, (start, slope, low, high)) in enumerate(lines.items())
    ]
    (part,) = bracketed(reversed_order := [sizes[2], sizes[0], sizes[1]])
    assert (part.curve, part.low, part.high) == (
        "middle",
        pytest.approx(1000, rel=0.04),
        pytest.approx(10_000, rel=0.04),
    )
    assert frontier(reversed_order) == ()  # it was trained at 100 and 100,000 only


def test_the_smallest_and_the_largest_size_are_never_bracketed() -> None:
    curves = crossing_sizes(0.0, np.random.default_rng(0))
    assert [part.curve for part in bracketed(curves)] == [one.name for one in curves[1:-1]]
    assert {point.parameters for point in frontier(curves)} == {round(3e7 * 4.0**number) for number in (1, 2, 3)}
    assert bracketed(curves[:2]) == ()


def test_a_size_takes_over_near_the_budget_of_the_known_law() -> None:
    first, second = crossing_sizes(0.0, np.random.default_rng(0))[:2]
    begin = bracketed(crossing_sizes(0.0, np.random.default_rng(0)))[0].low
    # Both sizes' losses at that budget, by the law itself, differ by less than what a line between two points of a
    # convex curve may be above it here (0.3 %).
    losses = [
        FLOOR + SIZES[0] / one.points[0].parameters ** SIZES[1]
        + SAMPLES[0] / (begin / (6 * one.points[0].parameters)) ** SAMPLES[1]
        for one in (first, second)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=3e-3)


def test_a_size_that_is_nowhere_the_best_does_not_part_its_neighbours() -> None:
    curves = crossing_sizes(0.0, np.random.default_rng(0))
    worse = attrs.evolve(
        curves[2], points=tuple(attrs.evolve(point, loss=1.2 * point.loss) for point in curves[2].points)
    )
    assert [part.curve for part in bracketed([*curves[:2], worse, *curves[3:]])] == [curves[1].name, curves[3].name]


def test_the_exponent_of_a_known_law_is_found_where_the_sizes_cross() -> None:
    found = fit(crossing_sizes(0.0, np.random.default_rng(0)))
    assert isinstance(found, Fit)
    # At most a factor of 2 off the best size (sizes are 4 apart), the loss above the floor is too high by a factor of
    # (0.28 * 2^-0.34 + 0.34 * 2^0.28) / 0.62 = 1.023, up and down within each size; over the budgets that are fitted,
    # a factor of 5,000 or more in C, that cannot turn the logarithm's slope by more than 0.023 / ln 5000 = 0.0027. The
    # floor is free, which costs about as much again.
    assert found.budgets[1] / found.budgets[0] > 5000
    assert found.law.exponent == pytest.approx(TRUE_EXPONENT, abs=0.005)
    assert found.law.floor == pytest.approx(FLOOR, abs=0.01)


def test_sizes_that_never_cross_are_not_fitted_but_jointly() -> None:
    curves = aimv2_sizes(0.0, np.random.default_rng(0))
    refused, joint = fit(curves), fit_joint(curves)
    assert isinstance(refused, str)
    assert refused.startswith("at no budget is a size better than both a smaller and a larger one")
    assert isinstance(joint, JointFit)
    assert joint.law.budget_exponent == pytest.approx(0.15355, abs=1e-4)
    assert (joint.law.size_exponent, joint.law.sample_exponent, joint.law.floor) == pytest.approx(
        (0.34, 0.28, 0.3), abs=1e-4
    )
    assert joint.law.loss(np.array([309.2e6]), np.array([1e9]))[0] == pytest.approx(
        0.3 + 20 / 309.2e6**0.34 + 30 / 1e9**0.28, rel=1e-6
    )


def enough(number: int, covered: int) -> bool:
    """Whether intervals that hold the truth in 95 % of studies would do so no oftener than this once in a thousand."""
    return float(binom.cdf(covered, number, 0.95)) > 1e-3


def test_intervals_of_the_envelopes_exponent_hold_the_truth_as_often_as_they_say() -> None:
    generator, covered, number = np.random.default_rng(7), 0, 80
    for _ in range(number):
        found = fit(crossing_sizes(0.002, generator))
        assert isinstance(found, Fit)
        covered += found.exponent_ci95[0] <= TRUE_EXPONENT <= found.exponent_ci95[1]
    assert enough(number, covered)
    assert not enough(number, number * 8 // 10)


def test_intervals_of_the_joint_law_hold_the_truth_as_often_as_they_say() -> None:
    generator, covered, number = np.random.default_rng(7), [0, 0, 0], 30
    for _ in range(number):
        found = fit_joint(aimv2_sizes(0.001, generator))
        assert isinstance(found, JointFit)
        intervals = zip(
            (found.size_ci95, found.sample_ci95, found.budget_ci95), (0.34, 0.28, TRUE_EXPONENT), strict=True
        )
        for place, ((low, high), truth) in enumerate(intervals):
            covered[place] += low <= truth <= high
    assert all(enough(number, times) for times in covered), covered


def test_more_noise_gives_wider_intervals_and_the_same_study_the_same() -> None:
    little, again, much = (fit(crossing_sizes(noise, np.random.default_rng(1))) for noise in (0.001, 0.001, 0.004))
    assert isinstance(little, Fit)
    assert isinstance(much, Fit)
    assert little == again
    assert np.diff(little.exponent_ci95)[0] < np.diff(much.exponent_ci95)[0]


def test_studies_that_cannot_hold_a_law_say_why() -> None:
    generator = np.random.default_rng(0)
    two = crossing_sizes(0.0, generator)[:2]
    assert str(fit(two)).endswith("train at least three sizes")
    few = [attrs.evolve(one, points=one.points[::4]) for one in crossing_sizes(0.0, generator)]
    assert "models at budgets that are bracketed" in str(fit(few))
    noisy = fit(crossing_sizes(0.05, np.random.default_rng(3)))
    assert isinstance(noisy, str)
    assert fit_joint(two) == (
        "five parameters take at least 8 models, 3 sizes and 3 numbers of samples; found 18, 2 and 18"
    )
    assert "do not bound its exponents" in str(fit_joint(aimv2_sizes(0.05, np.random.default_rng(0))))


def test_a_model_far_off_moves_the_joint_law_little() -> None:
    curves = aimv2_sizes(0.0, np.random.default_rng(0))
    points = curves[1].points
    spoilt = attrs.evolve(
        curves[1], points=(*points[:3], attrs.evolve(points[3], loss=1.02 * points[3].loss), *points[4:])
    )
    found = fit_joint([curves[0], spoilt, *curves[2:]])
    assert isinstance(found, JointFit)
    # Least squares would be off by the outlier's 2 %, shared among 28 models; Huber's loss counts it as 0.1 %.
    assert (found.law.size_exponent, found.law.sample_exponent) == pytest.approx((0.34, 0.28), abs=0.03)
    assert found.size_ci95[0] <= found.law.size_exponent <= found.size_ci95[1]


@pytest.mark.parametrize(
    ("value", "message"), [(80, "80"), (6740, "6.74k"), (1_234_567, "1.23M"), (5e9, "5B"), (1.2e13, "12T")]
)
def test_large_numbers_are_shortened(value: float, message: str) -> None:
    assert shortened_number(value) == message


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


def test_what_is_missing_is_reported_and_the_rest_is_shown() -> None:
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
        "no-budget": "summary.json does not contain its budget",
        "no-loss": "its validation loss is not a positive number: None",
        "later": "it did not run",
    }
    assert len(found.curves[0].points) == len(FALLING)


def test_a_summary_keeps_its_scaling_and_its_budgets(tmp_path: Path) -> None:
    made = summary(FALLING, "image")
    write_summary(made, tmp_path / "summary.json")
    assert read_summary(tmp_path / "summary.json") == made


def summary_of(curves: Sequence[Curve], *, others: Sequence[ExperimentSummary] = ()) -> Summary:
    """The summary of a study with ``curves``; the first one has ``others`` too."""
    entries = [
        entry(
            point.experiment,
            point.flops,
            point.loss,
            budget=BudgetSummary(
                trunk_parameters=point.parameters, parameters=point.parameters, samples=point.samples, flops=point.flops
            ),
        )
        for one in curves
        for point in one.points
    ]
    named = {one.name: tuple(point.experiment for point in one.points) for one in curves}
    named[curves[0].name] += tuple(one.name for one in others)
    asked = ScalingSummary(curves=named, others={}, loss="image")
    return Summary(study="scaling", scale="small", machine={}, scaling=asked, experiments=(*entries, *others))


def printed(made: Summary) -> str:
    buffer = io.StringIO()
    print_scaling(made, Console(file=buffer, width=80, no_color=True))
    return buffer.getvalue()


def test_the_terminal_tells_points_best_sizes_and_the_laws() -> None:
    message = printed(summary_of(crossing_sizes(0.0, np.random.default_rng(0))))
    words = " ".join(message.split())
    assert "Scaling: validation loss (image)" in words
    assert "among the sizes trained there (at least two): 3e+07 from " in words
    assert "Fitted to the 9 models at budgets that a smaller and a larger size bracket" in words
    assert "yes, bracketed" in message
    assert "95 % intervals: exponent 0.14" in words
    assert (
        "Joint law of size N and samples D (arXiv:2203.15556, approach 3), fitted to all 45 models: L(N, D) = 0.3 "
        in words
    )
    assert "the loss above the floor then falls as C^-0.154 (0.154 to 0.154)" in words
    assert max(map(len, message.splitlines())) <= 80


def test_the_terminal_says_why_there_is_no_law() -> None:
    words = " ".join(printed(summary(FALLING, "image")).split())
    assert "No law is fitted to the lower envelope: at no budget is a size better than both" in words
    assert "train at least three sizes" in words
    assert "No joint law of size and samples is fitted: five parameters take at least 8 models" in words


def test_nothing_is_printed_of_a_study_of_anything_else() -> None:
    assert printed(attrs.evolve(summary(FALLING), scaling=None)) == ""


def test_the_report_has_both_figures_and_says_what_is_missing(tmp_path: Path) -> None:
    curves = crossing_sizes(0.0, np.random.default_rng(0))
    made = summary_of(curves, others=[entry("broken", 1, 1.0, status="interrupted")])
    write_summary(made, tmp_path / "summary.json")
    text = draw_report(tmp_path).read_text(encoding="utf-8")
    assert {"scaling-samples.png", "scaling-compute.png"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert "<b>broken</b> is not a point: it was interrupted." in text
    assert "Fitted to the 9 models at budgets that a smaller and a larger size bracket" in text
    assert "Joint law of size N and samples D" in text


def test_a_report_without_a_scaling_study_has_no_such_section(tmp_path: Path) -> None:
    write_summary(attrs.evolve(summary(FALLING), scaling=None), tmp_path / "summary.json")
    assert 'id="scaling"' not in draw_report(tmp_path).read_text(encoding="utf-8")


def test_a_scaling_study_of_which_nothing_ran_says_so(tmp_path: Path) -> None:
    none = [entry("a", 1, 1.0, status="failed"), entry("b", 1, 1.0, status="failed")]
    write_summary(summary(none), tmp_path / "summary.json")
    text = draw_report(tmp_path).read_text(encoding="utf-8")
    assert "No law is fitted to the lower envelope: at no budget is a size better" in text
    assert "No joint law of size and samples is fitted" in text
    assert "<b>a</b> is not a point: it failed." in text
