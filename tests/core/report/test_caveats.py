"""What is said of scores in words."""

import attrs

from aimcore.report import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary
from aimcore.report.caveats import caveats
from aimcore.running.summary import ParametersSummary


def probed(name: str, top1: float, untrained: float, raw: float) -> ExperimentSummary:
    probe = ProbeSummary(top1=top1, untrained_top1=untrained, raw_pixels_top1=raw)
    paper = {"linear": 0.7}
    return ExperimentSummary(
        name=name, status="finished", seed=0, probes={"linear": probe}, paper=paper, recipe=f"{name}/recipe.json"
    )


def evaluated(name: str, **scores: tuple[float, float]) -> ExperimentSummary:
    """A run with scores and what chance would give."""
    found = {score: EvaluationSummary(value=value, num=100, chance=chance) for score, (value, chance) in scores.items()}
    return ExperimentSummary(name=name, status="finished", seed=0, evaluations=found, recipe=f"{name}/recipe.json")


def summary(*experiments: ExperimentSummary) -> Summary:
    return Summary(study="ablation", scale="small", machine={}, experiments=experiments)


def test_raw_pixels_that_win_are_said_in_words() -> None:
    said = list(caveats(summary(probed("raster", 0.7, 0.6, 0.75))))
    assert said[0] == "Raw pixels win against the trunk: raster, linear (raw pixels 75.0 %, trained 70.0 %)."
    assert not any("untrained" in line for line in said)


def test_a_trunk_that_learned_nothing_is_said_in_words() -> None:
    said = list(caveats(summary(probed("raster", 0.7, 0.7, 0.7))))
    assert (
        said[0]
        == "The trained trunk does not beat the untrained one: raster, linear (untrained 70.0 %, trained 70.0 %)."
    )


def test_what_was_probed_later_is_said_in_words() -> None:
    later = attrs.evolve(probed("raster", 0.8, 0.7, 0.75), extra={"probed_later": {"linear": {"at": "today"}}})
    assert next(caveats(summary(later))) == "raster was probed again after its run: linear."


def test_nothing_is_held_against_a_trunk_that_wins() -> None:
    said = list(caveats(summary(probed("raster", 0.8, 0.7, 0.75))))
    assert said == [
        "The paper's numbers are for its own models and data: compare the order of the rows, not the scores."
    ]


def test_what_the_data_leave_out_is_said_once_for_all_that_leave_out_the_same() -> None:
    counts = {"broken links": 3, "files of other kinds (.txt)": 1200}
    one, two, three = (
        attrs.evolve(probed(name, 0.8, 0.7, 0.75), paper=None, left_out={"train": counts}) for name in ("a", "b", "c")
    )
    two = attrs.evolve(two, left_out={"train": counts, "validation": {"broken links": 1}})
    assert list(caveats(summary(one, two, three))) == [
        "Left out of the data, train: 1,200 files of other kinds (.txt), 3 broken links.",
        "Left out of the data, validation of b: 1 broken links.",
    ]


def test_many_reasons_are_cut_after_the_largest() -> None:
    counts = {f"reason {number}": number for number in range(1, 10)}
    (said,) = caveats(summary(attrs.evolve(probed("a", 0.8, 0.7, 0.75), paper=None, left_out={"train": counts})))
    assert said.startswith("Left out of the data, train: 9 reason 9, 8 reason 8,")
    assert said.endswith("4 reason 4, 6 others.")


def test_an_interrupted_run_says_how_to_go_on() -> None:
    said = list(caveats(summary(attrs.evolve(probed("raster", 0.8, 0.7, 0.75), status="interrupted"))))
    assert said[0] == "raster was interrupted: continue it with --resume."


def test_lost_metrics_are_said_in_words() -> None:
    lost = attrs.evolve(probed("raster", 0.8, 0.7, 0.75), paper=None, extra={"missing_metrics": "4 to 8"})
    (said,) = caveats(summary(lost))
    assert said.startswith("raster lost the metrics of steps 4 to 8, as after a power cut. Its curves and mean losses")


def test_a_score_no_better_than_guessing_is_said_in_words() -> None:
    assert list(caveats(summary(evaluated("cap", top1=(0.2, 0.25), top5=(0.9, 0.5))))) == [
        "No better than guessing (score against chance): cap, top1 (20.0 % against 25.0 %)."
    ]
    assert list(caveats(summary(evaluated("cap", top1=(0.5, 0.25))))) == []


def test_of_many_guessed_scores_a_run_tells_the_worst() -> None:
    runs = (evaluated("a", top1=(0.2, 0.25), top5=(0.25, 0.5), top7=(0.7, 0.7)), evaluated("b", top1=(0.25, 0.25)))
    assert list(caveats(summary(*runs))) == [
        "No better than guessing (score against chance): a, 3 scores, the worst top5 (25.0 % against 50.0 %); "
        "b, top1 (25.0 % against 25.0 %)."
    ]


def test_what_guessing_cannot_miss_is_not_held_against_a_run() -> None:
    assert list(caveats(summary(evaluated("a", top10=(1.0, 1.0))))) == []


def test_the_share_of_trained_parameters_is_said_where_some_are_frozen() -> None:
    counts = ParametersSummary(trunk=2000, trunk_trained=50, total=2500, trained=550)
    tuned = attrs.evolve(probed("tuned", 0.8, 0.7, 0.75), paper=None, parameters=counts)
    assert list(caveats(summary(tuned))) == [
        "tuned trained 550 of 2,500 parameters (22.00%); of the trunk's, 50 of 2,000 (2.50%)."
    ]
    whole = attrs.evolve(tuned, parameters=ParametersSummary(trunk=2, trunk_trained=2, total=3, trained=3))
    assert list(caveats(summary(whole))) == []


def test_a_trunk_that_does_not_clearly_differ_from_a_baseline_is_named_with_the_interval() -> None:
    unclear = ProbeSummary(top1=0.8, raw_pixels_top1=0.79, over_raw_pixels95=(-0.012, 0.03), untrained_top1=0.5)
    clear = ProbeSummary(top1=0.8, raw_pixels_top1=0.7, over_raw_pixels95=(0.08, 0.12))
    found = ExperimentSummary(
        name="raster", status="finished", seed=0, probes={"linear": unclear, "knn": clear}, recipe="raster/recipe.json"
    )
    assert list(caveats(Summary(study="s", machine={}, experiments=(found,)))) == [
        "The trunk does not clearly differ from raw pixels on these test images (95 % interval of the paired "
        "difference, points): raster, linear (-1.2 to +3.0)."
    ]


def test_a_frozen_baseline_is_not_called_trained() -> None:
    frozen = attrs.evolve(probed("random", 0.7, 0.6, 0.75), num_steps=0, paper=None)
    assert list(caveats(summary(frozen))) == [
        "Raw pixels win against the trunk: random, linear (raw pixels 75.0 %, trunk 70.0 %).",
        "Frozen baselines, whose trunks have their initial weights: random.",
    ]


def test_of_many_scores_a_sentence_lists_the_first_ones() -> None:
    said = next(caveats(summary(*(probed(f"run{number}", 0.7, 0.6, 0.75) for number in range(11)))))
    assert said.count("raw pixels 75.0 %") == 8
    assert said.endswith("run7, linear (raw pixels 75.0 %, trained 70.0 %); and 3 more.")
