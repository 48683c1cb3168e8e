"""Accuracy against loss in a scaling study: which models count, and correlations by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimcore.report.accuracy_loss import accuracies_by_loss, draw_accuracy
from aimcore.report.scaling import scaled
from aimcore.running.summary import BudgetSummary, ExperimentSummary, ProbeSummary, ScalingSummary, Summary


def entry(name: str, size: int, samples: int, loss: float, **top1: float) -> ExperimentSummary:
    return ExperimentSummary(
        name=name,
        status="finished",
        seed=0,
        validation_total=loss,
        probes={probe: ProbeSummary(top1=value) for probe, value in top1.items()},
        budget=BudgetSummary(trunk_parameters=size, parameters=size, samples=samples, flops=float(size * samples)),
        recipe=f"{name}/recipe.json",
    )


def summary(*entries: ExperimentSummary) -> Summary:
    curves: dict[str, list[str]] = {}
    for one in entries:
        curves.setdefault(one.name[0], []).append(one.name)
    others = {curve: [name for name in names if name.endswith("long")] for curve, names in curves.items()}
    ended = {curve: [name for name in names if name not in others[curve]] for curve, names in curves.items()}
    return Summary(study="s", machine={}, scaling=ScalingSummary(curves=ended, others=others), experiments=entries)


FALLING = summary(
    entry("a1", 10, 10, 0.9, linear=0.50, attentive=0.6),
    entry("a2", 10, 20, 0.7, linear=0.60),
    entry("a-long", 10, 40, 0.1, linear=0.10),
    entry("b1", 20, 10, 0.5, linear=0.62, attentive=0.7),
)


def test_correlations_are_those_computed_by_hand() -> None:
    found = scaled(FALLING)
    assert found is not None
    (shown,) = accuracies_by_loss(FALLING, found)
    # Two models have the attentive probe, which is too few; the model that is not fitted does not count.
    assert (shown.probe, shown.num_models, shown.spearman) == ("linear", 3, pytest.approx(-1.0))
    # Deviations of the losses are 0.2, 0, -0.2; of the accuracies -0.0733, 0.0267, 0.0467.
    assert shown.pearson == pytest.approx(-0.024 / (0.08 * 0.0082666667) ** 0.5, rel=1e-6)
    assert shown.line.endswith("over 3 models: Pearson -0.93, Spearman -1.00")


def test_equal_accuracies_have_no_correlation() -> None:
    same = summary(*(entry(f"a{n}", 10, n, 1 / n, linear=0.5) for n in (1, 2, 3)))
    found = scaled(same)
    assert found is not None
    (shown,) = accuracies_by_loss(same, found)
    assert (shown.pearson, shown.spearman) == (None, None)
    assert "not defined" in shown.line


def test_the_figure_names_the_probe_and_the_correlation(tmp_path: Path) -> None:
    found = scaled(FALLING)
    assert found is not None
    (shown,) = accuracies_by_loss(FALLING, found)
    drawn = draw_accuracy(shown, found, "accuracy", tmp_path)
    assert "linear: correlation" in drawn.alt
    assert (tmp_path / "accuracy.png").exists()
