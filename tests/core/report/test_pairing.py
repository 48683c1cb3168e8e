"""Paired differences between variants: which runs are paired, and what their intervals are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from aimcore.report import EvaluationSummary, ExperimentSummary, ProbeSummary
from aimcore.report.pairing import PairedDifference, paired_differences
from aimcore.report.seeds import Variant
from aimcore.running.correctness import Correctness

BITS = {"good": [1, 1, 1, 1, 1, 1, 0, 0], "bad": [1, 1, 1, 1, 0, 0, 0, 0]}


def run(bits: Sequence[int], images: str | None = "test", recall: float | None = None) -> ExperimentSummary:
    record = None if images is None else Correctness.of(np.array(bits, dtype=bool), images)
    found = {} if recall is None else {"recall@5": EvaluationSummary(value=recall, num=8)}
    probes = {"linear": ProbeSummary(top1=sum(bits) / len(bits), correct=record)}
    return ExperimentSummary(name="a", status="finished", seed=0, probes=probes, evaluations=found, recipe="a/r.json")


def variant(name: str, *runs: ExperimentSummary, first_seed: int = 0) -> Variant:
    return Variant(name, dict(enumerate(runs, first_seed)))


def differences(*variants: Variant) -> tuple[PairedDifference, ...]:
    return paired_differences(variants)


def test_a_variant_is_compared_with_an_earlier_one_image_by_image() -> None:
    (found,) = differences(variant("bad", run(BITS["bad"])), variant("good", run(BITS["good"])))
    assert (found.variant, found.reference, found.score) == ("good", "bad", "linear")
    assert (found.mean, found.over_seeds) == (0.25, None)
    # The difference is 1 for two of eight images: a resample's mean is binomial(8, 1/4) / 8. Its quantiles at 2.5 % and
    # 97.5 % are 0 (probability 0.100) and 5 (0.996 at most 5; 0.973 at most 4).
    assert found.over_images == (0.0, 5 / 8)
    assert not found.is_clear


def test_pairing_cancels_what_both_runs_have_in_common() -> None:
    """400 images, of which 40 are better and none worse: clear when paired, although both intervals overlap."""
    bad = [1] * 200 + [0] * 200
    good = [1] * 240 + [0] * 160
    (found,) = differences(variant("bad", run(bad)), variant("good", run(good)))
    assert found.is_clear
    assert found.over_images is not None
    low, high = found.over_images
    # Binomial(400, 0.1) / 400 has the standard deviation sqrt(0.09 / 400) = 0.015.
    assert (low, high) == (pytest.approx(0.1 - 1.96 * 0.015, abs=0.005), pytest.approx(0.1 + 1.96 * 0.015, abs=0.005))


def test_seeds_that_both_variants_have_are_paired() -> None:
    good = [run(BITS["good"], recall=0.5), run(BITS["good"], recall=0.7), run(BITS["bad"], recall=0.9)]
    bad = [run(BITS["bad"], recall=0.4), run(BITS["bad"], recall=0.5)]
    linear, recall = differences(variant("bad", *bad, first_seed=1), variant("good", *good))
    assert linear.by_seed == (0.25, 0.0)
    assert recall.by_seed == (pytest.approx(0.3), pytest.approx(0.4))
    # Student's t with one degree of freedom: 12.706 * 0.0707 / sqrt(2) = 0.635.
    assert recall.over_seeds == (pytest.approx(0.35 - 0.6353, abs=1e-3), pytest.approx(0.35 + 0.6353, abs=1e-3))
    assert recall.over_images is None


def test_scores_of_different_test_images_are_not_compared() -> None:
    assert differences(variant("bad", run(BITS["bad"], "other")), variant("good", run(BITS["good"]))) == ()


def test_images_are_resampled_only_where_both_runs_record_them() -> None:
    (found,) = differences(variant("bad", run(BITS["bad"], None)), variant("good", run(BITS["good"])))
    assert (found.mean, found.over_images, found.is_clear) == (0.25, None, False)


def test_all_pairs_of_four_variants_and_of_more_each_with_the_first() -> None:
    runs = [variant(name, run(BITS["good"])) for name in "abcde"]
    assert [(one.variant, one.reference) for one in paired_differences(runs[:3])] == [
        ("b", "a"),
        ("c", "a"),
        ("c", "b"),
    ]
    assert len(paired_differences(runs[:4])) == 6
    assert [(one.variant, one.reference) for one in paired_differences(runs)] == [(name, "a") for name in "bcde"]


def test_a_score_that_few_of_many_variants_have_is_compared_among_these() -> None:
    probed = [variant(name, run(BITS["good"])) for name in "abc"]
    tuned = ExperimentSummary(
        name="a", status="finished", seed=0, recipe="a/r.json", evaluations={"top1": EvaluationSummary(value=1, num=8)}
    )
    found = paired_differences([*probed, *(variant(name, tuned) for name in "de")])
    assert [(one.variant, one.reference, one.score) for one in found] == [
        ("b", "a", "linear"), ("c", "a", "linear"), ("c", "b", "linear"), ("e", "d", "top1"),
    ]  # fmt: skip


def test_variants_without_a_common_seed_or_score_are_not_compared() -> None:
    assert differences(variant("a", run(BITS["bad"])), variant("b", run(BITS["good"]), first_seed=1)) == ()
    unprobed = ExperimentSummary(name="a", status="finished", seed=0, recipe="a/r.json")
    assert differences(variant("a", unprobed), variant("b", run(BITS["good"]))) == ()
    assert paired_differences(()) == ()
