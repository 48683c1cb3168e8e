"""The tables on the terminal."""

import io

import attrs
import pytest
from rich.console import Console

from aimcore.report import EvaluationSummary, ExperimentSummary, LossSummary, ProbeSummary, Summary
from aimcore.report.pairing import PairedDifference
from aimcore.report.seeds import SeedGroup, SeedScore
from aimcore.report.terminal_table import broken, paired_table, print_summary, seeds_table


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


def test_a_study_of_frozen_baselines_has_no_table_of_losses() -> None:
    frozen = attrs.evolve(probed("random", 0.7, 0.6, 0.65), num_steps=0, losses=None)
    assert "Losses" not in printed(summary(frozen))
    assert "Losses" in printed(summary(frozen, probed("raster", 0.7, 0.6, 0.65)))


def test_nothing_is_wider_than_80_columns_or_coloured() -> None:
    text = printed(summary(probed("a-rather-long-experiment-name", 0.8, 0.7, 0.9)))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_a_failure_shows_its_error_and_no_numbers() -> None:
    failed = ExperimentSummary(name="a", status="failed", seed=0, extra={"error": "OSError: gone"}, recipe="a/r.json")
    text = printed(summary(failed))
    assert "a failed: OSError: gone" in text
    assert "Top-1" not in text


def test_brackets_in_an_error_are_printed_as_they_are() -> None:
    failed = ExperimentSummary(name="a", status="failed", seed=0, extra={"error": "no [bold] here"}, recipe="a/r.json")
    assert "no [bold] here" in printed(summary(failed))


def evaluated(value: float) -> ExperimentSummary:
    found = {"zero_shot/top1": EvaluationSummary(value=value, num=100, chance=0.25, ci95=(value - 0.1, value + 0.1))}
    paper = {"zero_shot/top1": 0.771, "vqav2": 0.8}
    return attrs.evolve(probed("cap", 0.8, 0.7, 0.75), evaluations=found, paper=paper)


def test_evaluations_stand_beside_chance_and_the_paper() -> None:
    lines = printed(summary(evaluated(0.5))).splitlines()
    (row,) = [line.split() for line in lines if "zero_shot" in line]
    assert row == ["cap", "zero_shot/top1", "50.0", "±", "10.0", "25.0", "77.1"]


def test_what_only_the_paper_has_says_that_it_was_not_run() -> None:
    others = {"textvqa": 0.3, "a-data-set-of-many-words": 0.5, "another-data-set-of-many-words": 0.6}
    rich = attrs.evolve(evaluated(0.5), name="aimv2", paper={"vqav2": 0.8, **others})
    text = printed(summary(evaluated(0.5), rich))
    below = text[text.index("Not run: the paper's scores, %") :].splitlines()
    rows = [line.split() for line in below if line.split()[:1] in (["cap"], ["aimv2"])]
    assert rows == [["cap", "80.0", "-", "-"], ["aimv2", "80.0", "30.0", "50.0"], ["cap", "-"], ["aimv2", "60.0"]]
    assert max(map(len, below)) <= 80


def test_rows_that_only_the_paper_has_were_not_run_either() -> None:
    found = attrs.evolve(summary(evaluated(0.5)), paper_only={"food101": {"attentive": 0.901}})
    below = printed(found).partition("Not run: the paper's scores, %")[2].splitlines()
    assert [line.split() for line in below if line.split()[:1] == ["food101"]] == [["food101", "-", "90.1"]]


def test_names_of_scores_are_broken_where_words_end() -> None:
    name = "retrieval/image_to_text_centred@10"
    scores = {name: EvaluationSummary(value=1.0, num=100, chance=0.05, ci95=(0.8, 1.0))}
    text = printed(summary(attrs.evolve(evaluated(0.5), name="aimv2-seed-of-17", evaluations=scores)))
    assert [part for line in text.splitlines() for part in line.split() if part in name] == [
        "retrieval/image_to_text_",
        "centred@10",
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (30, ["zero_shot/top1"]),
        (10, ["zero_shot/", "top1"]),
        (6, ["zero_", "shot/", "top1"]),
        (2, ["zero_", "shot/", "top1"]),
    ],
)
def test_a_name_is_broken_after_a_mark_only(width: int, lines: list[str]) -> None:
    assert broken("zero_shot/top1", width).split("\n") == lines


def test_the_bootstrap_interval_is_shown_where_it_is_known_and_not_a_point() -> None:
    known = ProbeSummary(top1=0.8, ci95=(0.78, 0.82), bootstrap95=(0.75, 0.85))
    point = ProbeSummary(top1=1.0, ci95=(0.9, 1.0), bootstrap95=(1.0, 1.0))
    shown = attrs.evolve(probed("a", 0.8, 0.7, 0.75), probes={"linear": known, "knn": point})
    rows = [line.split() for line in printed(summary(shown)).splitlines() if "±" in line]
    assert [row[-6:-3] for row in rows if "linear" in row] == [["80.0", "±", "5.0"]]
    assert [row[-6:-3] for row in rows if "knn" in row] == [["100.0", "±", "5.0"]]


def test_paired_differences_are_reported_in_points_and_marked_where_they_are_clear() -> None:
    clear = PairedDifference(
        "spiral-seed-*", "raster-seed-*", "attentive", (-0.02, -0.04), (-0.05, -0.01), (-0.16, -0.1)
    )
    unclear = PairedDifference("spiral-seed-*", "raster-seed-*", "linear", (0.01,), None, None)
    buffer = io.StringIO()
    Console(file=buffer, width=80).print(paired_table([clear, unclear]))
    rows = [line.split() for line in buffer.getvalue().splitlines() if "seed-*" in line]
    assert rows[0][-8:] == ["attentive", "2", "-3.0", "*", "-5.0", "-1.0", "-16.0", "-10.0"]
    assert any(row[-5:] == ["linear", "1", "+1.0", "-", "-"] for row in rows)
    assert max(map(len, buffer.getvalue().splitlines())) <= 80


def test_seeds_are_reported_by_their_mean_and_range_and_by_chance() -> None:
    scores = (
        SeedScore("retrieval/image_to_text_centred@5", (0.25, 0.5, 0.75), chance=0.1),
        SeedScore("linear", (0.5, 0.6)),
    )
    buffer = io.StringIO()
    Console(file=buffer, width=80).print(seeds_table([SeedGroup("aimv2-seed-*", ("a", "b", "c"), scores)]))
    rows = [line.split() for line in buffer.getvalue().splitlines() if "aimv2-seed" in line]
    assert rows[0][2:] == ["3", "50.0", "25.0", "25.0–75.0", "5.0"]
    assert rows[1][1:] == ["linear", "2", "55.0", "7.1", "50.0–60.0", "-"]
    assert max(map(len, buffer.getvalue().splitlines())) <= 80
