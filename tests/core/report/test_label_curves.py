"""Accuracy against the number of labels, in the report and on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from report_material import make_study
from rich.console import Console

from aimcore.report import LossSummary, Summary, write_summary
from aimcore.report.label_curves import label_groups
from aimcore.report.label_section import _tick_labels, draw_labels, labels_table, print_labels
from aimcore.report.page import draw_report
from aimcore.running.summary import (
    ExperimentSummary,
    FewLabelsSummary,
    LabelPointSummary,
    ProbeSummary,
    read_summary,
    summary_to_json,
)

CARD = {"train_images": {"used": 12_000}, "num_classes": 10}
FEW = (
    FewLabelsSummary(per_class=100, trained=(0.8, 0.82), untrained=(0.7, 0.75), raw_pixels=(0.81, 0.8)),
    FewLabelsSummary(per_class=10, trained=(0.7, 0.66), untrained=(0.5, 0.55), raw_pixels=(0.6, 0.65)),
)


def probed(name: str, few: tuple[FewLabelsSummary, ...] | None = FEW, card: Any = CARD) -> ExperimentSummary:
    score = ProbeSummary(top1=0.85, untrained_top1=0.8, raw_pixels_top1=0.86, few_labels=few)
    return ExperimentSummary(
        name=name,
        status="finished",
        seed=0,
        probes={"linear": score},
        extra={"protocols": {"linear": card}},
        recipe="r",
    )


def classified(name: str, error: float | None, status: Any = "finished") -> ExperimentSummary:
    losses = None if error is None else {"error": LossSummary(validation=error)}
    return ExperimentSummary(name=name, status=status, seed=0, losses=losses, recipe="r")


def study(*entries: ExperimentSummary, points: tuple[LabelPointSummary, ...] | None = None) -> Summary:
    return Summary(study="s", machine={}, experiments=entries, label_points=points)


def point(curve: str, per_class: int, *experiments: str) -> LabelPointSummary:
    return LabelPointSummary(curve=curve, per_class=per_class, experiments=experiments, error="error")


def tuned() -> Summary:
    errors = {"a": 0.25, "b": 0.35, "c": 0.125, "d": 0.5, "e": 0.5, "f": 0.125}
    points = (
        point("fine-tuned", 10, "a", "b"), point("scratch", 10, "d", "e"),
        point("fine-tuned", 100, "c"), point("scratch", 100, "f"),
    )  # fmt: skip
    return study(*(classified(name, error) for name, error in errors.items()), points=points)


def test_a_probe_has_a_curve_of_the_trained_trunk_and_of_each_baseline_up_to_all_labels() -> None:
    (group,) = label_groups(study(probed("ours")))
    assert group.title == "Probe linear"
    assert {curve.name: dict(curve.draws) for curve in group.curves} == {
        "ours": {10: (0.7, 0.66), 100: (0.8, 0.82), 1200: (0.85,)},
        "raw pixels": {10: (0.6, 0.65), 100: (0.81, 0.8), 1200: (0.86,)},
        "untrained trunk": {10: (0.5, 0.55), 100: (0.7, 0.75), 1200: (0.8,)},
    }


def test_where_curves_cross_is_said_draw_by_draw() -> None:
    (group,) = label_groups(study(probed("ours")))
    # At 10 labels: +10 and +1 points. At 100: -1 and +2, so neither is ahead in both draws. At 1,200: -1.
    assert group.lines == (
        "Probe linear: ours is ahead of raw pixels at 10 (+5.5); behind raw pixels at 1,200 (-1.0); "
        "neither ahead of nor behind raw pixels in every draw at 100 (+0.5) labels per class.",
        "Probe linear: ours is ahead of the untrained trunk at 10 (+15.5), 100 (+8.5), 1,200 (+5.0) labels per class.",
    )


def test_experiments_with_equal_baselines_share_their_curves() -> None:
    (group,) = label_groups(study(probed("a"), probed("b")))
    assert [curve.name for curve in group.curves] == ["a", "raw pixels", "a, untrained", "b"]
    assert [(one.curve, one.reference) for one in group.comparisons] == [
        ("a", "raw pixels"), ("a", "the untrained trunk"), ("b", "raw pixels"), ("b", "the untrained trunk"),
    ]  # fmt: skip


def test_baselines_that_differ_are_named_by_their_experiments() -> None:
    """As with several seeds: two curves with one name could not be told apart."""
    other = attrs.evolve(FEW[0], raw_pixels=(0.5, 0.5))
    (group,) = label_groups(study(probed("a"), probed("b", (other, FEW[1]))))
    assert [curve.name for curve in group.curves] == ["a", "a, raw pixels", "a, untrained", "b", "b, raw pixels"]


@pytest.mark.parametrize("card", [None, {}, {"train_images": 3}, {"train_images": {"used": 5}, "num_classes": 0}])
def test_without_the_number_of_images_in_its_card_a_curve_has_few_labels_only(card: Any) -> None:
    (group,) = label_groups(study(probed("ours", card=card)))
    assert group.numbers == [10, 100]


def test_training_with_few_labels_has_a_curve_per_name_and_a_value_per_experiment() -> None:
    (group,) = label_groups(tuned())
    assert {curve.name: dict(curve.draws) for curve in group.curves} == {
        "fine-tuned": {10: (0.75, 0.65), 100: (0.875,)},
        "scratch": {10: (0.5, 0.5), 100: (0.875,)},
    }
    assert group.lines == (
        "Training with few labels: fine-tuned is ahead of scratch at 10 (+20.0); neither ahead of nor behind scratch "
        "in every draw at 100 (+0.0) labels per class.",
    )


@pytest.mark.parametrize("lost", [classified("b", None), classified("b", 0.1, "failed"), None])
def test_a_point_without_one_of_its_experiments_is_left_out(lost: ExperimentSummary | None) -> None:
    found = tuned()
    kept = [one for one in found.experiments if one.name != "b"]
    (group,) = label_groups(attrs.evolve(found, experiments=(*kept, lost) if lost else tuple(kept)))
    assert list(group.curves[0].draws) == [100]


def test_other_studies_have_no_curves() -> None:
    assert label_groups(study(probed("ours", few=None))) == ()


def test_the_table_on_the_terminal_has_means_over_draws() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_labels(study(probed("ours")), console)
    text = console.export_text()
    assert "68.0" in text  # the mean of 70 and 66
    assert "ahead of raw pixels at 10 (+5.5)" in text.replace("\n", " ")
    (group,) = label_groups(tuned())
    assert [column.header for column in labels_table(group).columns] == ["curve", "10", "100"]


def test_the_figure_describes_every_curve(tmp_path: Path) -> None:
    (group,) = label_groups(study(probed("ours")))
    drawn = draw_labels(group, "labels-linear", tmp_path)
    assert "ours 68.0 % at 10, 81.0 % at 100, 85.0 % at 1,200" in drawn.alt
    assert (tmp_path / "labels-linear.png").stat().st_size > 1000


def test_the_page_shows_the_curves_and_says_first_where_they_cross(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["ours"], pictured=False)
    made = read_summary(out / "summary.json")
    probes = {"linear": attrs.evolve(made.experiments[0].probes["linear"], few_labels=FEW)}  # type: ignore[index]
    write_summary(
        attrs.evolve(made, experiments=(attrs.evolve(made.experiments[0], probes=probes),)), out / "summary.json"
    )
    text = draw_report(out).read_text()
    line = "Probe linear: ours is behind raw pixels"
    assert 0 < text.index("ours is ahead of raw pixels at 10 (+5.5)") < text.index('class="caveats"'), line
    assert 'id="labels"' in text
    assert (out / "report" / "labels-probe-linear.png").is_file()


def test_the_summary_keeps_points_and_draws(tmp_path: Path) -> None:
    for made in (tuned(), study(probed("ours"))):
        write_summary(made, tmp_path / "summary.json")
        assert read_summary(tmp_path / "summary.json") == made
    assert "label_points" not in summary_to_json(study(probed("ours")))


def test_a_label_of_the_axis_that_would_touch_another_is_left_out() -> None:
    assert _tick_labels([10, 100, 1000, 1200]) == ["10", "100", "1,000", ""]
    assert _tick_labels([10, 100, 1000]) == ["10", "100", "1,000"]
    assert _tick_labels([10]) == ["10"]
