"""Runs that differ in their seed alone, and what they have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_material import recipe

from aimcore.report import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary
from aimcore.report.seeds import SeedScore, seed_groups, variants


def run(out: Path, name: str, seed: int, value: float | None = 0.5, **changes: Any) -> ExperimentSummary:
    """A finished run with its recipe in ``out``; it has a score of its evaluation where there is a value."""
    (out / name).mkdir(parents=True)
    values = recipe(name, seed, "raster")
    values["experiment"] |= changes
    (out / name / "recipe.json").write_text(json.dumps(values))
    found = {} if value is None else {"recall@5": EvaluationSummary(value=value, num=8, chance=0.125)}
    probes = {"linear": ProbeSummary(top1=0.8)}
    return ExperimentSummary(
        name=name, status="finished", seed=seed, probes=probes, evaluations=found, recipe=f"{name}/recipe.json"
    )


def summary(*experiments: ExperimentSummary) -> Summary:
    return Summary(study="s", machine={}, experiments=experiments)


def test_runs_that_differ_in_their_seed_alone_have_a_mean_a_range_and_a_multiple_of_chance(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"aimv2-seed-{seed}", seed, value) for seed, value in enumerate((0.25, 0.5, 0.75))]
    (group,) = seed_groups(variants(summary(*runs), tmp_path))
    assert (group.name, len(group.experiments)) == ("aimv2-seed-*", 3)
    linear, recall = group.scores
    assert (linear.mean, linear.times_chance) == (pytest.approx(0.8), None)
    assert (recall.mean, min(recall.values), max(recall.values), recall.times_chance) == (0.5, 0.25, 0.75, 4.0)
    assert recall.spread == 0.25  # the root of (0.25^2 + 0 + 0.25^2) / 2


def test_recipes_decide_and_not_names(tmp_path: Path) -> None:
    alike = [run(tmp_path, "one", 0), run(tmp_path, "two", 1)]
    others = [run(tmp_path, "a-seed-0", 0, num_steps=7), run(tmp_path, "a-seed-1", 1, num_steps=8)]
    (group,) = seed_groups(variants(summary(*alike, *others), tmp_path))
    assert group.experiments == ("one", "two")
    assert group.name == "one, two"


def test_the_same_seed_twice_is_no_group(tmp_path: Path) -> None:
    assert seed_groups(variants(summary(run(tmp_path, "a", 0), run(tmp_path, "b", 0)), tmp_path)) == ()


def test_a_score_that_one_run_lacks_counts_the_others(tmp_path: Path) -> None:
    runs = [run(tmp_path, "a0", 0), run(tmp_path, "a1", 1, value=None), run(tmp_path, "a2", 2)]
    (group,) = seed_groups(variants(summary(*runs), tmp_path))
    assert {score.name: len(score.values) for score in group.scores} == {"linear": 3, "recall@5": 2}


def test_runs_that_failed_or_lost_their_recipe_are_in_no_group(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"a{seed}", seed) for seed in range(3)]
    (tmp_path / "a1" / "recipe.json").unlink()
    failed = ExperimentSummary(name="a2", status="failed", seed=2, recipe="a2/recipe.json")
    assert seed_groups(variants(summary(runs[0], runs[1], failed), tmp_path)) == ()


def test_chance_that_cannot_be_missed_is_no_measure() -> None:
    assert SeedScore("recall@10", (1.0, 1.0), chance=1.0).times_chance is None
    assert SeedScore("exact", (1.0, 1.0), chance=0.0).times_chance is None


def test_runs_that_begin_with_a_run_of_their_own_seed_differ_in_their_seed_alone(tmp_path: Path) -> None:
    parents = [run(tmp_path, f"parent-seed-{seed}", seed) for seed in range(2)]
    other = run(tmp_path, "other", 0, num_steps=7)
    begun = {"part": "trunk"}
    children = [
        run(tmp_path, f"child-seed-{seed}", seed, initial_weights=begun | {"experiment": f"parent-seed-{seed}"})
        for seed in range(2)
    ]
    stranger = run(tmp_path, "child-of-other", 2, initial_weights=begun | {"experiment": "other"})
    found = variants(summary(*parents, other, *children, stranger), tmp_path)
    assert [one.name for one in found] == ["parent-seed-*", "other", "child-seed-*", "child-of-other"]


def test_a_circle_of_runs_ends(tmp_path: Path) -> None:
    one = run(tmp_path, "one", 0, branch={"experiment": "two", "step": 1})
    two = run(tmp_path, "two", 0, branch={"experiment": "one", "step": 1})
    assert [found.name for found in variants(summary(one, two), tmp_path)] == ["one", "two"]
