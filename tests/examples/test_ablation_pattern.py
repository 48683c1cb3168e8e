"""examples/ablation_pattern.py: Table 3b of arXiv:2401.08541."""

from pathlib import Path
from typing import get_args

import pytest

from aimcore import Scale, Study
from aimcore.engine.cost import cost_of
from aimcore.report import read_summary
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study

EXAMPLE = Path(__file__).parents[2] / "examples" / "ablation_pattern.py"


def study(scale: Scale) -> Study:
    return load_study(EXAMPLE, scale)


@pytest.mark.parametrize("scale", get_args(Scale))
def test_every_scale_compares_the_four_orderings_causally(scale: Scale) -> None:
    experiments = study(scale).experiments
    assert [one.name for one in experiments] == ["raster", "spiral", "checkerboard", "fixed_random"]
    assert {(one.objective.prefix, one.probe_attention) for one in experiments} == {(None, "causal")}  # type: ignore[attr-defined]


@pytest.mark.parametrize("scale", get_args(Scale))
def test_experiments_differ_in_their_ordering_alone(scale: Scale) -> None:
    import attrs

    first, *others = study(scale).experiments
    for other in others:
        objective = attrs.evolve(other.objective, ordering=first.objective.ordering)  # type: ignore[attr-defined]
        assert attrs.evolve(other, name=first.name, objective=objective) == first  # type: ignore[type-var]


def test_the_papers_scores_are_those_of_table_3b() -> None:
    paper = study("small").paper
    assert [paper[name]["linear"] for name in ("raster", "spiral", "checkerboard", "fixed_random")] == [
        0.695, 0.677, 0.682, 0.658,
    ]  # fmt: skip
    assert [scores["attentive"] for scores in paper.values()] == [0.774, 0.763, 0.760, 0.757]


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_the_scales_that_run_here_pass_every_check(scale: Scale) -> None:
    check_study(study(scale))


def test_the_papers_scale_needs_no_data_to_be_costed_and_says_what_is_assumed() -> None:
    paper = study("paper")
    check_study(paper, with_data=False)
    assert "ASSUMPTION" in paper.source
    assert cost_of(paper.experiments[0]).trunk_parameters == 680_535_552


def test_one_ordering_runs_from_the_command_to_its_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--scale", "smoke", "--only", "spiral", "--set", "num_steps=3", "--set", "engine.num_threads=1"]
    assert main([str(EXAMPLE), *options, "--out", str(out)]) == 0
    (entry,) = read_summary(out / "summary.json").experiments
    assert (entry.status, entry.num_steps, set(entry.probes or {})) == ("finished", 3, {"linear"})
    assert {path.name for path in (out / "spiral").iterdir()} >= {
        "recipe.json", "metrics.jsonl", "validation.json", "checkpoints",
    }  # fmt: skip


def test_a_recorded_recipe_repeats_the_run_to_the_last_bit(tmp_path: Path) -> None:
    options = ["--scale", "smoke", "--only", "raster", "--set", "probes=[]", "--set", "num_steps=3"]
    assert main([str(EXAMPLE), *options, "--out", str(tmp_path / "one")]) == 0
    assert main([str(tmp_path / "one" / "raster" / "recipe.json"), "--out", str(tmp_path / "two")]) == 0
    first, second = (read_summary(tmp_path / name / "summary.json").experiments[0] for name in ("one", "two"))
    assert first.losses == second.losses
    assert first.validation_loss_by_chunk == second.validation_loss_by_chunk
