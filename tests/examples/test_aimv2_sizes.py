"""The studies of image sizes: what they compare, that they pass every check, and that they run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from aimcore import Experiment, Scale, Study
from aimcore.engine import read_metrics
from aimcore.engine.cost import cost_of
from aimcore.report import read_summary
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.usefixtures("vocabulary")
NAMES = ("resolution", "high_resolution")
COLUMNS = (
    "iNAT-18", "CIFAR-10", "CIFAR-100", "Food101", "DTD", "Pets", "Cars", "CAM17", "PCAM", "RxRx1", "EuroSAT", "fMoW",
    "Infographic",
)  # fmt: skip


def study(name: str, scale: Scale) -> Study:
    return load_study(EXAMPLES / f"aimv2_{name}.py", scale)


def by_name(found: Study) -> dict[str, Experiment]:
    return {one.name: one for one in found.experiments}


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_for_two_cores_passes_every_check(name: str) -> None:
    check_study(study(name, "small"))


@pytest.mark.parametrize("scale", get_args(Scale))
def test_adaptations_begin_with_the_usual_encoder_resized_and_do_not_decay(scale: Scale) -> None:
    first, *others = study("resolution", scale).experiments
    assert first.initial_weights is None
    for other in others:
        assert other.initial_weights is not None
        assert (other.initial_weights.experiment, other.initial_weights.resize) == ("usual", True)
        assert (other.optimizer.weight_decay, other.optimizer.peak_lr) == (0.0, first.optimizer.peak_lr)


def test_every_cell_of_table_6_has_the_papers_score() -> None:
    found = study("resolution", "paper")
    assert found.paper == {
        "usual": {"attentive": 0.866, "attentive@448": 0.848},
        "large": {"attentive": 0.879, "attentive@224": 0.789},
        "native": {"attentive": 0.861, "attentive@448": 0.871, "attentive@native": 0.873},
    }
    sizes = {name: (one.data.image_size, one.probe_image_sizes) for name, one in by_name(found).items()}
    assert sizes == {"usual": (224, (448,)), "large": (448, (224,)), "native": (224, (448,))}


def test_the_native_encoder_has_fixed_positions_and_the_papers_areas() -> None:
    native = by_name(study("resolution", "paper"))["native"]
    assert native.trunk.positions == "sincos"  # type: ignore[attr-defined]
    assert native.data.native is not None
    assert native.data.native.log2_area == (7, 12)
    assert (native.data.native.padding, native.probe_native_area) == ("image", 4096)


def test_the_papers_scale_has_all_sizes_at_all_resolutions() -> None:
    found = by_name(study("high_resolution", "paper"))
    assert len(found) == 12
    shapes = {name: (one.trunk.width, one.data.image_size) for name, one in found.items()}  # type: ignore[attr-defined]
    assert shapes["L-1x"] == (1024, 224)
    assert shapes["3B-2x"] == (3072, 448)
    assert study("high_resolution", "paper").paper["3B-2x"]["attentive"] == 0.895


@pytest.mark.parametrize(
    ("row", "percentages"),
    [
        ("L-1x", (86.6, 76.0, 99.1, 92.2, 95.7, 87.9, 96.3, 96.3, 93.7, 89.3, 5.6, 98.4, 60.7, 69.0)),
        ("H-1x", (87.5, 77.9, 99.3, 93.5, 96.3, 88.2, 96.6, 96.4, 93.3, 89.3, 5.8, 98.5, 62.2, 70.4)),
        ("1B-1.5x", (88.7, 82.7, 99.4, 93.9, 97.1, 88.9, 96.9, 96.5, 94.2, 89.5, 8.4, 98.9, 65.1, 73.7)),
        ("L-2x", (87.9, 81.3, 99.1, 92.4, 96.6, 88.9, 96.5, 96.6, 94.1, 89.6, 7.4, 98.6, 62.8, 72.7)),
        ("3B-2x", (89.5, 85.9, 99.5, 94.5, 97.4, 89.0, 97.4, 96.7, 93.4, 89.9, 9.5, 98.9, 66.1, 74.8)),
    ],
)
def test_the_papers_scores_are_the_rows_of_table_b2(row: str, percentages: tuple[float, ...]) -> None:
    scores = study("high_resolution", "paper").paper[row]
    assert tuple(scores) == ("attentive", *COLUMNS)
    assert tuple(scores.values()) == tuple(round(value / 100, 3) for value in percentages)


def test_columns_that_no_probe_here_gives_are_not_run_at_any_scale() -> None:
    found = study("high_resolution", "small")
    assert set(found.paper["H-2x"]) - {probe.name for probe in found.experiments[0].probes} == set(COLUMNS)


def test_larger_images_of_the_paper_come_without_synthetic_captions() -> None:
    found = by_name(study("high_resolution", "paper"))
    kinds = {
        name: {kind for part in found[name].data.train.sources for kind in part.captions}  # type: ignore[attr-defined]
        for name in ("L-1x", "L-2x")
    }
    assert kinds == {"L-1x": {"alt", "synthetic"}, "L-2x": {"alt"}}


def test_the_papers_scale_is_costed_without_data() -> None:
    for name in NAMES:
        check_study(study(name, "paper"), with_data=False)
    native = by_name(study("resolution", "paper"))["native"]
    cost = cost_of(native)
    assert cost.trunk_parameters == 309_197_824 - 256 * 1024  # AIMv2-L without its learned positions
    assert 128 < cost.patches_per_image < 4096


def test_the_resolution_study_runs_from_the_command_to_its_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--scale", "smoke", "--set", "num_steps=2", "--set", "engine.num_threads=1"]
    assert main([str(EXAMPLES / "aimv2_resolution.py"), *options, "--out", str(out)]) == 0
    entries = {entry.name: entry for entry in read_summary(out / "summary.json").experiments}
    assert {name: set(entry.probes or {}) for name, entry in entries.items()} == {
        "usual": {"attentive", "attentive@64"},
        "large": {"attentive", "attentive@32"},
        "native": {"attentive", "attentive@64", "attentive@native"},
    }
    for line in read_metrics(out / "native"):
        assert line["num_patches"] == line["area"] * line["num_images"] <= 512
        assert 0 < line["padding_share"] < 0.5
