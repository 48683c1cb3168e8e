"""The studies of AIM's tables and figures: what they compare, what they hold fixed, and that they run."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from image_tokenizers import write_dvae, write_kmeans

from aimcore import DataNotFound, Engine, Experiment, Scale, Study
from aimcore.data import train_steps
from aimcore.io.metrics_lines import read_metrics
from aimcore.run import command
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study
from aimcore.running.study_run import run_study
from aimcore_tokenizers import DVAE

EXAMPLES = Path(__file__).parents[2] / "examples"
SCALES: tuple[Scale, ...] = ("smoke", "small")
ROWS = {
    "targets": ["pixels", "normalized-pixels", "kmeans", "dvae"],
    "crop_scale": ["crop-scale-0.08", "crop-scale-0.4", "crop-scale-1.0"],
    "attention": ["causal-causal", "causal-bidirectional", "prefix-bidirectional", "prefix-causal"],
    "masking": ["autoregressive", "masked-50", "masked-75"],
    "layers": ["deep"],
    "difficulty": ["upright", "flipped"],
    "lora": ["frozen", "lora", "full", "scratch"],
    "head": ["none", "mlp", "transformer"],
    "deep_vs_wide": ["deep", "wide"],
    "head_size": ["default", "quarter-width", "half-width", "half-depth", "two-thirds-depth"],
    "data": ["curated", "uncurated", "mixed"],
    "scaling": ["w32-150", "w32-350", "w64-150", "w64-350", "w128-150", "w128-350"],
}
FIELDS = {
    "targets": "objective", "head": "objective", "head_size": "objective", "crop_scale": "data", "data": "data",
    "deep_vs_wide": "trunk",
}  # fmt: skip
"""The only field, besides the name, in which the experiments of a study differ."""


@pytest.fixture(autouse=True)
def tokenizers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tokenizers where the paper's scale looks for those of the user."""
    folder = tmp_path_factory.getbasetemp() / "aim_tokenizers"
    if not folder.exists():
        folder.mkdir()
        write_kmeans(folder / "kmeans.safetensors", patch_size=14)
        write_dvae(folder / "dvae.safetensors")
    for name in ("kmeans", "dvae"):
        monkeypatch.setenv(f"{name.upper()}_TOKENIZER", str(folder / f"{name}.safetensors"))


@cache
def study(name: str, scale: Scale) -> Study:
    return load_study(EXAMPLES / f"aim_{name}.py", scale)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_table_is_there(name: str) -> None:
    assert [one.name for one in study(name, "small").experiments] == ROWS[name]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ROWS)
def test_the_scales_that_run_here_pass_every_check(name: str, scale: Scale) -> None:
    check_study(study(name, scale))


@pytest.mark.parametrize("name", ROWS)
def test_the_papers_scale_is_aims_and_can_be_costed_without_data(name: str) -> None:
    paper = study(name, "paper")
    check_study(paper, with_data=False)
    wide = next(one for one in paper.experiments if getattr(one.trunk, "width", 0) == 1536)
    with torch.device("meta"):
        assert sum(one.numel() for one in wide.trunk.build().parameters()) == 680_535_552
    assert (wide.data.batch_size, wide.data.image_size, wide.num_steps) == (
        4096, 224, 500_000 if name in ("data", "scaling", "layers", "lora") else 125_000,
    )  # fmt: skip


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
@pytest.mark.parametrize(("name", "field"), FIELDS.items())
def test_experiments_of_a_study_differ_in_one_field(name: str, field: str, scale: Scale) -> None:
    first, *others = study(name, scale).experiments
    for other in others:
        assert getattr(other, field) != getattr(first, field)
        assert attrs.evolve(other, name=first.name, **{field: getattr(first, field)}) == first  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("name", "row", "linear", "attentive"),
    [
        ("targets", "pixels", 0.675, 0.762),
        ("targets", "normalized-pixels", 0.700, 0.782),
        ("targets", "kmeans", 0.666, 0.759),
        ("targets", "dvae", 0.640, 0.745),
        ("crop_scale", "crop-scale-0.08", 0.684, 0.777),
        ("crop_scale", "crop-scale-0.4", 0.700, 0.782),
        ("crop_scale", "crop-scale-1.0", 0.496, 0.635),
        ("attention", "causal-causal", 0.695, 0.774),
        ("attention", "causal-bidirectional", 0.309, 0.523),
        ("attention", "prefix-causal", 0.684, 0.769),
        ("attention", "prefix-bidirectional", 0.700, 0.782),
        ("head", "none", 0.640, 0.754),
        ("head", "mlp", 0.700, 0.782),
        ("head", "transformer", 0.705, 0.785),
        ("deep_vs_wide", "deep", 0.688, 0.779),
        ("deep_vs_wide", "wide", 0.700, 0.782),
        ("head_size", "default", 0.700, 0.782),
        ("head_size", "quarter-width", 0.694, 0.777),
        ("head_size", "half-width", 0.696, 0.781),
        ("head_size", "half-depth", 0.653, 0.762),
        ("head_size", "two-thirds-depth", 0.681, 0.771),
    ],
)
def test_the_papers_scores_are_those_of_its_tables(name: str, row: str, linear: float, attentive: float) -> None:
    assert study(name, "small").paper[row] == {"linear": linear, "attentive": attentive}


def test_codes_are_those_of_the_files_beside_the_study() -> None:
    targets: Any = [one.objective.target for one in study("targets", "small").experiments[2:]]  # type: ignore[attr-defined]
    assert [(one.tokenizer.name, one.tokenizer.num_codes, one.sees) for one in targets] == [
        ("kmeans", 512, "patch"), ("dvae", 512, "image"),
    ]  # fmt: skip
    assert targets[1].views[0].pixels_per_patch == 4


def test_a_missing_tokenizer_of_the_papers_scale_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVAE_TOKENIZER", "/data/dall_e.safetensors")
    with pytest.raises(DataNotFound, match=r"/data/dall_e\.safetensors"):
        load_study(EXAMPLES / "aim_targets.py", "paper")


def test_heads_at_the_papers_scale_have_the_sizes_of_table_4() -> None:
    heads: Any = [one.objective.head for one in study("head_size", "paper").experiments]  # type: ignore[attr-defined]
    assert [(one.width, one.depth) for one in heads] == [(2048, 12), (512, 12), (1024, 12), (2048, 6), (2048, 8)]


def test_the_deep_encoder_has_as_many_parameters_in_its_matrices_as_the_wide_one() -> None:
    trunks: Any = {one.name: one.trunk for one in study("deep_vs_wide", "paper").experiments}
    assert (trunks["deep"].depth, trunks["deep"].width, trunks["deep"].num_heads) == (54, 1024, 8)
    assert len({one.depth * one.width**2 for one in trunks.values()}) == 1


def test_dfn_plus_reads_imagenet_every_fifth_time() -> None:
    mixed: Any = study("data", "paper").experiments[-1].data.train
    assert dict(zip((one.name for one in mixed.sources), mixed.weights, strict=True)) == {
        "webdataset": 0.8, "image_folder": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["targets", "head", "deep_vs_wide"])
def test_variants_of_one_study_see_the_same_crops(name: str) -> None:
    first, second = (_first_crops(one) for one in study(name, "small").experiments[:2])
    assert torch.equal(first, second)


def _first_crops(experiment: Experiment) -> torch.Tensor:
    steps = train_steps(
        experiment.data, experiment.data.train.open(), patch_size=experiment.trunk.patch_size, seed=experiment.seed,
        num_steps=2,
    )  # fmt: skip
    return torch.cat([batch.images.patches_BNF for step in islice(steps, 2) for batch in step])


@pytest.mark.parametrize("name", ROWS)
def test_a_study_runs_to_its_summary(name: str, tmp_path: Path) -> None:
    made = study(name, "smoke")
    engine = Engine(num_threads=1)
    single = attrs.evolve(made, experiments=[attrs.evolve(one, engine=engine) for one in made.experiments])
    summary = run_study(single, tmp_path, scale="smoke")
    assert {one.name: one.status for one in summary.experiments} == dict.fromkeys(
        (one.name for one in made.experiments), "finished"
    )
    if name == "difficulty":
        first, second = (one.validation_loss_by_chunk for one in summary.experiments)
        assert first is not None
        assert second is not None
        assert first != second  # other images, the same weights
    for one in summary.experiments if name == "data" else ():
        lines = read_metrics(tmp_path / one.name)
        assert [line["step"] for line in lines if "validation_losses" in line] == [1]


def test_the_encoder_of_table_8_is_adapted_by_lora_and_in_full_from_the_same_weights() -> None:
    runs = {one.name: one for one in study("lora", "paper").experiments}
    lora, full, scratch = (runs[f"{name}-7B"] for name in ("lora", "full", "scratch"))
    assert (lora.trunk.rank, lora.trunk.trunk) == (8, full.trunk)  # type: ignore[attr-defined]
    assert {lora.initial_weights.experiment, full.initial_weights.experiment} == {"frozen-7B"}  # type: ignore[union-attr]
    assert scratch.initial_weights is None
    # Table 11: 50 epochs of 1.28 million images in batches of 1024, five of them warm-up.
    assert (lora.num_steps, lora.schedule.warmup_steps, lora.objective.mixup) == (62_550, 6_255, 0.8)  # type: ignore[attr-defined]
    paper = study("lora", "paper").paper
    assert [paper[f"lora-{size}"]["accuracy/top1"] for size in ("0.6B", "1B", "3B", "7B")] == [
        0.810, 0.836, 0.855, 0.863,
    ]  # fmt: skip


def test_both_encoders_of_table_3d_are_probed_with_the_weights_they_were_trained_to() -> None:
    runs = {one.name: one for one in study("attention", "small").experiments}
    for name, parent in (("causal-bidirectional", "causal-causal"), ("prefix-causal", "prefix-bidirectional")):
        weights: Any = runs[name].initial_weights
        assert (runs[name].num_steps, weights.experiment, weights.part) == (0, parent, "trunk")
        assert {runs[name].probe_attention, runs[parent].probe_attention} == {"causal", "bidirectional"}


def test_the_curves_of_figure_5_are_validated_on_the_curated_set() -> None:
    experiments = study("data", "small").experiments
    assert len({one.data.validation for one in experiments}) == 1
    assert {one.validate_every for one in experiments} == {100}


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_the_study_of_the_dvae_gives_a_code_per_patch(scale: Scale) -> None:
    made = study("dvae", scale)
    check_study(made, with_data=scale != "paper")
    (run,) = made.experiments
    assert run.trunk.patch_size == (8 if scale == "paper" else 4)
    assert (run.objective.num_codes, run.data.image_size) == ((8192, 256) if scale == "paper" else (512, 28))  # type: ignore[attr-defined]


def test_the_dvae_is_trained_and_exported_to_a_file_that_the_targets_read(tmp_path: Path) -> None:
    made = study("dvae", "smoke")
    single = attrs.evolve(made, experiments=[attrs.evolve(made.experiments[0], engine=Engine(num_threads=1))])
    run_study(single, tmp_path / "out", scale="smoke")
    file = tmp_path / "dvae.safetensors"
    assert command(["tokenizer", "export", str(tmp_path / "out" / "dvae"), "--out", str(file)]) == 0
    assert DVAE.from_file(str(file)).pixels_per_patch == 4
