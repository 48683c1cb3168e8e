"""Which comparisons of a paper a study reproduces: pairs, verdicts and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from aimcore.report.reproduction import Reproduction, markdown, reproduction_of
from aimcore.running.correctness import Correctness
from aimcore.running.summary import ExperimentSummary, ProbeSummary, Summary

PAPER = {"good": 0.8, "bad": 0.6, "same": 0.6, "odd": 0.7}
RIGHT = {"good": 300, "bad": 200, "same": 200, "odd": 301}
"""Of 400 test images, the first ones are right."""


def run(out: Path, name: str, seed: int) -> ExperimentSummary:
    bits = np.arange(400) < RIGHT[name] + seed
    probe = ProbeSummary(
        top1=bits.mean(), correct=Correctness.of(bits, "test"), untrained_top1=0.4, raw_pixels_top1=0.5
    )
    full = f"{name}-seed-{seed}"
    (out / full).mkdir()
    recipe = {"experiment": {"name": full, "seed": seed, "variant": name}}
    (out / full / "recipe.json").write_text(json.dumps(recipe))
    return ExperimentSummary(
        name=full, status="finished", seed=seed, probes={"linear": probe}, paper={"linear": PAPER[name]},
        recipe=f"{full}/recipe.json",
    )  # fmt: skip


def summary(out: Path, names: Sequence[str]) -> Summary:
    runs = tuple(run(out, name, seed) for seed in range(3) for name in names)
    return Summary(study="toy", source="Table 1", machine={}, experiments=runs)


def test_every_pair_that_differs_in_the_paper_has_a_verdict(tmp_path: Path) -> None:
    found = reproduction_of(summary(tmp_path, list(PAPER)), tmp_path)
    verdicts = {(pair.better, pair.worse): pair.verdict for pair in found.pairs}
    # "bad" and "same" are equal in the paper. "odd" is better than "good" on one image per seed, three of 400 in all: a
    # resample has none of them with probability (397/400)^400 = 0.049, so that the interval over images ends at 0.
    assert verdicts == {
        ("good", "bad"): "reproduced", ("good", "same"): "reproduced", ("good", "odd"): "open",
        ("odd", "bad"): "reproduced", ("odd", "same"): "reproduced",
    }  # fmt: skip
    assert (found.num("reproduced"), found.num("reversed"), found.num("open")) == (4, 0, 1)
    pair = next(pair for pair in found.pairs if (pair.better, pair.worse) == ("good", "bad"))
    assert (pair.paper, pair.ours.mean) == (pytest.approx(0.2), pytest.approx(0.25))


def test_a_study_whose_scores_the_paper_does_not_have_says_so() -> None:
    page = markdown([Reproduction("s", "source", rows=(), pairs=())], {})
    assert "No pair: no two variants have a score here that differs in the paper." in page


def test_a_difference_of_the_other_sign_is_reversed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RIGHT, "bad", 350)
    (pair,) = reproduction_of(summary(tmp_path, ["good", "bad"]), tmp_path).pairs
    assert (pair.better, pair.verdict) == ("good", "reversed")
    assert pair.ours.mean == pytest.approx(-0.125)


def test_the_page_has_the_papers_scores_beside_ours_with_both_baselines(tmp_path: Path) -> None:
    text = markdown([reproduction_of(summary(tmp_path, ["good", "bad"]), tmp_path)], {"scale": "small"})
    assert "| toy | 1 | 1 | 0 | 0 |" in text
    assert "| good | linear | 80.0 | 75.2 (75.0 to 75.5) | 40.0 | 50.0 |" in text
    assert "| good | bad | linear | +20.0 | +25.0 |" in text
    assert "| reproduced |" in text
