"""A run begins with weights of a file: another run's, a trunk's own, or a released encoder's; or it is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from core.engine.test_real_modules import batch, next_patch
from core.engine.toys import ToySource, ToyTrunk, experiment, whole_batch
from golden_files import FOLDER
from loguru import logger
from safetensors.torch import load_file, save, save_file

from aimcore import Data, Experiment, InvalidValue, Weights
from aimcore.engine import (
    TrainingEngine,
    WeightsChanged,
    WeightsMismatch,
    WeightsNotFound,
    build_module,
    initial_module,
)
from aimcore.engine.initial_weights import check_weights, hash_of
from aimcore.engine.manifest import Manifest, describe_files
from aimcore_trunks import ViT, from_released


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    """The weights of another run's toy."""
    path = tmp_path / "model.safetensors"
    save_file(build_module(experiment(seed=5)).state_dict(), path)
    return path


def beginning(path: Path | str, **weights: Any) -> Experiment:
    return experiment(initial_weights=Weights(url=str(path), **weights))


def same(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Names of equal values; the toy's norm and buffer always are."""
    return {name for name, value in one.items() if torch.equal(value, other[name])}


def test_the_trunk_of_another_run_is_taken_and_the_rest_is_fresh(fitted: Path) -> None:
    found = initial_module(beginning(fitted)).state_dict()
    assert {"trunk.embed.weight", "trunk.table.places"} <= same(found, build_module(experiment(seed=5)).state_dict())
    assert {"head.weight", "head.bias"} <= same(found, build_module(experiment()).state_dict())


def test_all_of_another_run_is_taken(fitted: Path) -> None:
    found = initial_module(beginning(fitted, part="all")).state_dict()
    assert same(found, build_module(experiment(seed=5)).state_dict()) == found.keys()


def test_a_trunk_alone_is_taken_from_any_file_system() -> None:
    trunk = build_module(experiment(seed=5)).trunk.state_dict()
    fsspec.filesystem("memory").pipe_file("/weights/trunk.safetensors", save(trunk))
    run = beginning("memory://weights/trunk.safetensors")
    assert same(initial_module(run).trunk.state_dict(), trunk) == trunk.keys()
    check_weights(run, build_module(run), run.initial_weights)


def test_a_released_encoder_is_taken_in_its_own_layout() -> None:
    path = FOLDER / "aim_v1.weights.safetensors"
    data = Data(train=ToySource(), validation=ToySource(), batch_size=8, image_size=28)
    trunk, weights = ViT(width=64, depth=4, num_heads=4), Weights(url=str(path))
    run = next_patch(0, "fp32", data=data, trunk=trunk, initial_weights=weights)
    expected = from_released(load_file(path))
    with torch.device("meta"):
        check_weights(run, run.objective.build(run.trunk.build()), run.initial_weights)
    assert same(initial_module(run).trunk.state_dict(), expected) == expected.keys()


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "bf16")])
def test_training_begins_with_them_at_every_stage(fitted: Path, stage: int, precision: str) -> None:
    run = experiment(stage, precision, initial_weights=Weights(url=str(fitted), part="all"))
    with TrainingEngine(run) as engine:
        found = engine.full_state_dict()
        engine.step([whole_batch(0)])
    expected = build_module(experiment(seed=5)).state_dict()
    for name, value in expected.items():  # frozen weights have no float32 masters
        is_rounded = precision == "bf16" and "frozen" in name
        assert torch.equal(found[name], value.bfloat16().float() if is_rounded else value)


def test_a_layout_that_fits_by_nothing_is_reported_by_names_and_shapes(fitted: Path) -> None:
    run = experiment(trunk=ToyTrunk(width=8), initial_weights=Weights(url=str(fitted)))
    with pytest.raises(WeightsMismatch) as caught:
        initial_module(run)
    assert caught.value.differences[0].startswith("of another shape: ")
    assert "embed.weight [16, 48] instead of [8, 48]" in caught.value.differences[0]


def test_what_is_missing_and_what_is_unexpected_is_reported(tmp_path: Path) -> None:
    state = build_module(experiment()).state_dict()
    state["head.extra"] = state.pop("head.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatch) as caught:
        initial_module(beginning(tmp_path / "model.safetensors", part="all"))
    assert caught.value.differences == ("missing: head.bias", "unexpected: head.extra")


def test_what_is_fresh_need_not_be_there_and_is_not_taken(tmp_path: Path) -> None:
    state = build_module(experiment(seed=5)).state_dict()
    del state["trunk.table.places"]
    save_file(state, tmp_path / "model.safetensors")
    found = initial_module(beginning(tmp_path / "model.safetensors", fresh=("table", "embed.bias"))).state_dict()
    assert {"trunk.table.places", "trunk.embed.bias"} <= same(found, build_module(experiment()).state_dict())
    assert "trunk.embed.weight" in same(found, state | {"trunk.table.places": torch.zeros(4, 16)})


def test_fresh_names_that_nothing_has_are_logged(fitted: Path) -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}", level="WARNING")
    logger.enable("aimcore")
    try:
        initial_module(beginning(fitted, fresh=("embed.bias", "tabel")))
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    assert lines == ["toy: initial_weights.fresh: 'tabel' names no parameter (did you mean 'table'?)\n"]


def test_a_trunk_that_reads_other_layouts_says_why_not_this_one(tmp_path: Path) -> None:
    save_file({"tower.layers.0.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    run = next_patch(0, "fp32", initial_weights=Weights(url=str(tmp_path / "other.safetensors")))
    with pytest.raises(
        WeightsMismatch, match=r"nor is it in another layout that trunk 'vit' reads: no entry of an AIM"
    ):
        initial_module(run)


def test_another_file_than_the_recipe_names_is_refused(fitted: Path) -> None:
    digest = hashlib.sha256(fitted.read_bytes()).hexdigest()
    assert hash_of(str(fitted)) == digest
    initial_module(beginning(fitted, sha256=digest))
    with pytest.raises(WeightsChanged, match=rf"has sha256 {digest}, the recipe names {'0' * 64}"):
        initial_module(beginning(fitted, sha256="0" * 64))


def test_a_file_without_weights_is_reported(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(WeightsMismatch, match="missing: "):
        initial_module(beginning(tmp_path / "empty.safetensors"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps({"a": 1}), "holds more than tensors and plain values; nothing in it was run"),
        (b"", "it is empty"),
        (b"\x08\0\0\0\0\0\0\0notjson!", "it is not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "it is not a safetensors file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_and_never_unpickled(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    run = beginning(path)
    with pytest.raises(WeightsNotFound, match=why):
        initial_module(run)
    with pytest.raises(WeightsNotFound, match=why):
        check_weights(run, build_module(run), run.initial_weights)


@pytest.mark.parametrize("url", ["/nowhere/model.safetensors", "gs://bucket/model.safetensors", "memory://nothing"])
def test_a_file_that_does_not_exist_is_reported(url: str) -> None:
    with pytest.raises(WeightsNotFound, match=f"cannot read {url}: .*Give a safetensors file"):
        check_weights(beginning(url), build_module(experiment()), Weights(url=url))
    with pytest.raises(WeightsNotFound, match=f"cannot read {url}: "):
        initial_module(beginning(url))


def test_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue, match="sha256: must be 64 hexadecimal digits in lower case, got 'ABC'"):
        Weights(url="model.safetensors", sha256="ABC")


def test_fine_tuning_begins_where_pre_training_ended(tmp_path: Path) -> None:
    from aimcore_objectives import Classification

    path = tmp_path / "model.safetensors"
    with TrainingEngine(next_patch(0, "fp32")) as engine:
        engine.step([batch(0)])
        state = engine.full_state_dict()
    save_file(state, path)
    run = next_patch(0, "fp32", objective=Classification(num_classes=2), initial_weights=Weights(url=str(path)))
    trunk = initial_module(run).trunk.state_dict()
    assert all(torch.equal(value, state[f"trunk.{name}"]) for name, value in trunk.items())


def test_weights_of_an_experiment_are_found_only_where_its_study_is_run() -> None:
    run = experiment(initial_weights=Weights(experiment="other"))
    with pytest.raises(WeightsNotFound, match="cannot read experiment 'other': it is found only where a study is run"):
        initial_module(run)


def test_what_a_run_begins_with_is_a_file_or_an_experiment() -> None:
    with pytest.raises(InvalidValue, match="experiment: give a file or an experiment"):
        Weights(url="model.safetensors", experiment="other")
    with pytest.raises(InvalidValue, match="experiment: must be letters"):
        Weights(experiment="../other")


def test_a_folder_is_refused_with_the_file_that_is_meant(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"it is a folder, and no file model\.safetensors"):
        initial_module(beginning(tmp_path))
    checkpoint = tmp_path / "checkpoints" / "step_00000003"
    checkpoint.mkdir(parents=True)
    save_file({}, checkpoint / "model.safetensors")
    Manifest(3, 0.0, {}, describe_files(checkpoint)).write(checkpoint)
    with pytest.raises(WeightsNotFound, match=f"it is a folder: use its file {checkpoint}/model.safetensors"):
        initial_module(beginning(tmp_path))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsNotFound, match=f"it is a folder: use its file {tmp_path}/model.safetensors"):
        initial_module(beginning(tmp_path))
