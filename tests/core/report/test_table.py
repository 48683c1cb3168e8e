"""The tables on the terminal."""

import io

import attrs
from rich.console import Console

from aimcore.report import EvaluationSummary, ExperimentSummary, LossSummary, ProbeSummary, Summary
from aimcore.report.table import print_summary, remarks


def probed(name: str, top1: float, untrained: float, raw: float) -> ExperimentSummary:
    probe = ProbeSummary(top1=top1, ci95=(top1 - 0.01, top1 + 0.01), untrained_top1=untrained, raw_pixels_top1=raw)
    return ExperimentSummary(
        name=name,
        status="finished",
        seed=0,
        num_steps=600,
        losses={"next_patch": LossSummary(train_last_100=0.51234, validation=0.5)},
        probes={"linear": probe},
        paper={"linear": 0.695, "attentive": 0.774},
        seconds=33.3,
        recipe=f"{name}/recipe.json",
    )


def summary(*experiments: ExperimentSummary) -> Summary:
    return Summary(study="ablation", scale="small", machine={}, experiments=experiments)


def printed(shown: Summary) -> str:
    buffer = io.StringIO()
    print_summary(shown, Console(file=buffer, width=80, no_color=True))
    return buffer.getvalue()


def test_scores_stand_beside_the_untrained_trunk_raw_pixels_and_the_paper() -> None:
    lines = printed(summary(probed("checkerboard", 0.8012, 0.7, 0.75))).splitlines()
    (row,) = [line.split() for line in lines if "linear" in line]
    assert row == ["checkerboard", "linear", "80.1", "±", "1.0", "70.0", "75.0", "69.5"]


def test_losses_stand_beside_the_prefix_they_were_validated_with() -> None:
    lines = printed(summary(attrs.evolve(probed("raster", 0.8, 0.7, 0.75), validation_prefix=1))).splitlines()
    (row,) = [line.split() for line in lines if "next_patch" in line]
    assert row == ["raster", "next_patch", "0.5123", "0.5000", "1", "33"]


def test_nothing_is_wider_than_80_columns_or_coloured() -> None:
    text = printed(summary(probed("a-rather-long-experiment-name", 0.8, 0.7, 0.9)))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_raw_pixels_that_win_are_said_in_words() -> None:
    said = list(remarks(summary(probed("raster", 0.7, 0.6, 0.75))))
    assert said[0] == "Raw pixels win against the trained trunk: raster, linear (75.0 % against 70.0 %)."
    assert not any("untrained" in line for line in said)


def test_a_trunk_that_learned_nothing_is_said_in_words() -> None:
    said = list(remarks(summary(probed("raster", 0.7, 0.7, 0.7))))
    assert said[0] == "The trained trunk does not beat the untrained one: raster, linear (70.0 % against 70.0 %)."


def test_a_failure_shows_its_error_and_no_numbers() -> None:
    failed = ExperimentSummary(name="a", status="failed", seed=0, extra={"error": "OSError: gone"}, recipe="a/r.json")
    text = printed(summary(failed))
    assert "a failed: OSError: gone" in text
    assert "Top-1" not in text


def test_brackets_in_an_error_are_printed_as_they_are() -> None:
    failed = ExperimentSummary(name="a", status="failed", seed=0, extra={"error": "no [bold] here"}, recipe="a/r.json")
    assert "no [bold] here" in printed(summary(failed))


def test_nothing_is_held_against_a_trunk_that_wins() -> None:
    said = list(remarks(summary(probed("raster", 0.8, 0.7, 0.75))))
    assert said == ["The paper's numbers are for its own models and data: compare how the rows rank, not the scores."]


def test_an_interrupted_run_says_how_to_go_on() -> None:
    said = list(remarks(summary(attrs.evolve(probed("raster", 0.8, 0.7, 0.75), status="interrupted"))))
    assert said[0] == "raster was interrupted: go on with --resume."


def evaluated(value: float) -> ExperimentSummary:
    found = {"zero_shot/top1": EvaluationSummary(value=value, num=100, chance=0.25, ci95=(value - 0.1, value + 0.1))}
    paper = {"zero_shot/top1": 0.771, "vqav2": 0.8}
    return attrs.evolve(probed("cap", 0.8, 0.7, 0.75), evaluations=found, paper=paper)


def test_evaluations_stand_beside_chance_and_the_paper() -> None:
    lines = printed(summary(evaluated(0.5))).splitlines()
    (row,) = [line.split() for line in lines if "zero_shot" in line]
    assert row == ["cap", "zero_shot/top1", "50.0", "±", "10.0", "25.0", "77.1"]


def test_what_only_the_paper_has_says_that_it_was_not_run() -> None:
    lines = printed(summary(evaluated(0.5))).splitlines()
    (row,) = [line.split() for line in lines if "vqav2" in line]
    assert row == ["cap", "vqav2", "not", "run", "-", "80.0"]


def test_a_score_no_better_than_guessing_is_said_in_words() -> None:
    assert next(remarks(summary(evaluated(0.2)))) == (
        "No better than guessing: cap, zero_shot/top1 (25.0 % against 20.0 %)."
    )
    assert not any("guessing" in line for line in remarks(summary(evaluated(0.5))))
