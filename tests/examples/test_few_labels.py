"""examples/few_labels.py: what is compared has the same trunk and the same labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import attrs
import pytest

from aimcore import Scale, Study
from aimcore.report import read_summary
from aimcore.report.label_curves import label_groups
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study
from aimcore_sources import BundledFashionMNIST, FewLabels

EXAMPLE = Path(__file__).parents[2] / "examples" / "few_labels.py"


def study(scale: Scale) -> Study:
    return load_study(EXAMPLE, scale)


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_scale_passes_the_checks(scale: Scale) -> None:
    check_study(study(scale), with_data=scale != "paper")


@pytest.mark.parametrize("scale", get_args(Scale))
def test_fine_tuning_differs_from_training_from_scratch_in_its_initial_weights_alone(scale: Scale) -> None:
    found = study(scale)
    by_name = {one.name: one for one in found.experiments}
    tuned, scratch = ([p for p in found.label_points if p.curve == curve] for curve in ("fine-tuned", "from scratch"))
    assert [point.per_class for point in tuned] == [point.per_class for point in scratch]
    for one, other in zip(tuned, scratch, strict=True):
        for name, fresh in zip(one.experiments, other.experiments, strict=True):
            start = by_name[name].initial_weights
            assert start is not None
            assert start.experiment == "pretrained"  # type: ignore[union-attr]
            changed = attrs.evolve(by_name[name], name=fresh, initial_weights=None)  # type: ignore[type-var]
            assert changed == by_name[fresh]


@pytest.mark.parametrize("scale", get_args(Scale))
def test_all_runs_have_the_trunk_tests_and_normalisation_of_pre_training(scale: Scale) -> None:
    first, *others = study(scale).experiments
    for other in others:
        assert (other.trunk, other.data.validation, other.data.mean, other.data.std) == (
            first.trunk, first.data.validation, first.data.mean, first.data.std,
        )  # fmt: skip
        assert isinstance(other.data.train, FewLabels)
        assert other.data.train.source == (first.data.probe_train or first.data.train)


def test_pre_training_may_read_all_of_fashion_mnist_and_labels_are_always_bundled() -> None:
    first = study("small").experiments[0]
    assert first.data.train.name in ("fashion_mnist", "bundled_fashion_mnist")
    assert first.data.probe_train == BundledFashionMNIST(split="train")
    assert first.data.validation == BundledFashionMNIST(split="test")


def test_it_runs_to_curves_with_few_labels(tmp_path: Path) -> None:
    assert main([str(EXAMPLE), "--scale", "smoke", "--out", str(tmp_path / "out")]) == 0
    groups = label_groups(read_summary(tmp_path / "out" / "summary.json"))
    assert [group.title for group in groups] == [
        "Training with few labels", "Probe linear", "Probe linear_tokens", "Probe attentive", "Probe knn",
    ]  # fmt: skip
    assert {curve.name: list(curve.draws) for curve in groups[0].curves} == {"fine-tuned": [4], "from scratch": [4]}
    assert [group.numbers for group in groups[1:]] == [[4, 20]] * 4
