"""Encoders from files as trunks: what an experiment makes of them, and that they compute what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_files import FOLDER, assert_golden, tensors
from loguru import logger
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

from aimcore import (
    AimcoreError,
    Data,
    Experiment,
    InvalidValue,
    PatchGrid,
    Reading,
    Trunk,
    Weights,
    load_encoder,
    recipe,
)
from aimcore.contracts.images import images_of
from aimcore.encoders.recognition import installed_layouts
from aimcore.engine import initial_module
from aimcore.testing import parametrize_with_checks
from aimcore.testing.checks import Check
from aimcore_evaluations import ZeroShot
from aimcore_heads import LinearHead
from aimcore_objectives import Contrastive, NextPatch, NoTraining
from aimcore_objectives.towers import TextTower
from aimcore_sources import BundledEmoji
from aimcore_targets import NormalizedPixels
from aimcore_trunks import LoRA, Pretrained, ViT
from aimcore_trunks.interpolation import interpolate_positions

GOLDEN = FOLDER / "aim_v2.weights.safetensors"
PRETRAINED = Pretrained(url=str(GOLDEN), num_heads=4)
PLAIN = ViT(
    width=64, depth=4, num_heads=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", ffn_width=160, positions="learned",
    grid=(4, 4), interpolate=True,
)  # fmt: skip


@parametrize_with_checks([PRETRAINED])
def test_it_passes_the_checks_of_trunks(component: object, check: Check) -> None:
    check(component)


def experiment(trunk: Trunk = PRETRAINED, **changes: object) -> Experiment:
    source = BundledEmoji()
    data = Data(train=source, validation=source, batch_size=4, image_size=56)
    settings = {"name": "used", "data": data, "trunk": trunk, "objective": NoTraining(), "num_steps": 0}
    return Experiment(**settings | changes)


def assert_computes_the_golden_values(one: Experiment) -> None:
    io = tensors("aim_v2.io")
    trunk = initial_module(one).trunk.eval()
    with torch.no_grad():
        found = trunk(images_of(io["pixels"], 14), Reading()).tokens_BND
    assert_golden(found, io["features"])


def test_an_experiment_has_the_plain_trunk_and_the_file() -> None:
    one = experiment()
    assert one.trunk == PLAIN
    assert one.initial_weights == Weights(url=str(GOLDEN))
    assert recipe.loads(recipe.dumps(one)) == one
    assert_computes_the_golden_values(one)


def test_it_can_be_written_into_a_recipe_by_hand() -> None:
    written = recipe.to_recipe(experiment())
    named = {"name": "pretrained", "url": str(GOLDEN), "num_heads": 4}
    written["experiment"] |= {"trunk": named, "initial_weights": None}
    assert recipe.from_recipe(written) == experiment()


@pytest.mark.parametrize("layout", ["aimv2_transformers", "aimv2_timm"])
def test_files_of_other_layouts_and_formats_begin_a_run(layout: str, tmp_path: Path) -> None:
    kinds = {one.name: one for one in installed_layouts()}
    state = kinds["aimv2_authors"].read(tensors("aim_v2.weights"))
    theirs = kinds[layout].write(state)
    save_file({name: value.contiguous() for name, value in theirs.items()}, tmp_path / "model.safetensors")
    torch.save({name: value.clone() for name, value in theirs.items()}, tmp_path / "model.pth")
    for name in ("model.safetensors", "model.pth"):
        assert_computes_the_golden_values(experiment(Pretrained(url=str(tmp_path / name), num_heads=4)))


def test_lora_adapts_it_and_begins_with_it() -> None:
    one = experiment(LoRA(trunk=PRETRAINED, rank=2))
    assert one.trunk == LoRA(trunk=PLAIN, rank=2)
    assert_computes_the_golden_values(one)


def test_another_resolution_gets_positions_that_are_interpolated_once() -> None:
    source = BundledEmoji()
    data = Data(train=source, validation=source, batch_size=4, image_size=84)
    one = experiment(Pretrained(url=str(GOLDEN), num_heads=4, image_size=84), data=data)
    assert one.trunk.grid == (6, 6)
    table = tensors("aim_v2.weights")["preprocessor.pos_embed"][0]
    expected = interpolate_positions(table, PatchGrid(4, 4), PatchGrid(6, 6))
    assert torch.equal(initial_module(one).trunk.positions.table, expected)


def test_pre_training_continues_with_a_fresh_head_which_the_log_says() -> None:
    said: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(said.append, format="{message}")
    objective = NextPatch(head=LinearHead(), target=NormalizedPixels())
    assert_computes_the_golden_values(experiment(objective=objective, num_steps=2))
    logger.remove(sink)
    assert any("with fresh weights: head." in line for line in said)


def test_it_is_the_image_tower_of_lit() -> None:
    tower = TextTower(width=16, depth=1, num_heads=2)
    objective = Contrastive(text_tower=tower, context_length=8, embedding_width=8, num_pool_heads=2)
    one = experiment(objective=objective, num_steps=2, frozen=("trunk",))
    trained = {name for name, value in initial_module(one).named_parameters() if value.requires_grad}
    assert trained
    assert not any(name.startswith("trunk.") for name in trained)


def test_a_model_of_timm_is_one_too(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit", pretrained=False).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    source = BundledEmoji()
    data = Data(train=source, validation=source, batch_size=4, image_size=160)
    one = experiment(Pretrained(url=f"timm:test_vit@{tmp_path}/model.pth"), data=data)
    pixels = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        found = initial_module(one).trunk.eval()(images_of(pixels, 16), Reading()).tokens_BND
        assert torch.allclose(found, model.forward_features(pixels)[:, 1:], atol=1e-5)


def test_what_cannot_be_a_trunk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AimcoreError, match="nowhere"):
        experiment(Pretrained(url=str(tmp_path / "nowhere.safetensors")))
    with pytest.raises(InvalidValue, match="overlaps part"):
        experiment(initial_weights=Weights(url="other.safetensors"))
    with pytest.raises(InvalidValue, match="sha256"):
        experiment(Pretrained(url=str(GOLDEN), num_heads=4, sha256="x"))
    with pytest.raises(InvalidValue, match="refused"):
        Pretrained(url="reference://x")


def test_a_file_of_two_towers_is_an_objective_that_zero_shot_can_evaluate() -> None:
    encoder = load_encoder(str(FOLDER / "aim_v2_lit.weights.safetensors"), num_heads=4, text_heads=4)
    whole = Weights(url=encoder.source.url, part="all")
    one = experiment(encoder.trunk, objective=encoder.objective, initial_weights=whole, evaluations=(ZeroShot(),))
    golden, module = tensors("aim_v2_lit.io"), initial_module(one).eval()
    with torch.no_grad():
        assert_golden(module.embed_images(images_of(golden["pixels"], 14)), golden["image_embeds"])


def vit_of_transformers(folder: Path) -> str:
    """A ViT for images of 56 px, whose positions are read at other sizes only if they are interpolated."""
    settings = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=56, patch_size=14
    )
    ViTModel(settings, add_pooling_layer=False).save_pretrained(folder)
    return f"transformers:{folder}"


def test_positions_of_a_model_of_transformers_are_interpolated_for_images_of_another_size(tmp_path: Path) -> None:
    url = vit_of_transformers(tmp_path)
    source = BundledEmoji()
    data = Data(train=source, validation=source, batch_size=4, image_size=84)
    for trunk in (Pretrained(url=url), Pretrained(url=url, image_size=84)):
        one = experiment(trunk, data=data)
        assert recipe.loads(recipe.dumps(one)) == one
        pixels = torch.rand(1, 3, 84, 84)
        model = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
        with torch.no_grad():
            found = initial_module(one).trunk.eval()(images_of(pixels, 14), Reading()).tokens_BND
            expected = model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
        assert torch.allclose(found, expected, atol=1e-5)


def test_settings_that_would_have_no_effect_are_refused(tmp_path: Path) -> None:
    url = vit_of_transformers(tmp_path)
    with pytest.raises(
        InvalidValue, match=r"num_heads: cannot be given for transformers:.*says itself how it is built"
    ):
        experiment(Pretrained(url=url, num_heads=2))
    with pytest.raises(InvalidValue, match="text_heads: cannot be given for transformers:"):
        experiment(Pretrained(url=url, text_heads=2))
    with pytest.raises(
        InvalidValue, match=r"image_size: must be a multiple of the patch size \(14\), such as 56 or 70"
    ):
        experiment(Pretrained(url=str(GOLDEN), num_heads=4, image_size=60))
    with pytest.raises(
        InvalidValue, match=r"image_size: must be a multiple of the patch size \(14\), such as 14; got 5"
    ):
        experiment(Pretrained(url=str(GOLDEN), num_heads=4, image_size=5))


def test_the_trunk_of_a_file_with_a_decoder_needs_the_heads_of_both() -> None:
    url = str(FOLDER / "aim_v2_pretraining.weights.safetensors")
    with pytest.raises(AimcoreError, match="text_heads="):
        experiment(Pretrained(url=url, num_heads=4))
    one = experiment(Pretrained(url=url, num_heads=4, text_heads=4))
    assert one.trunk == load_encoder(url, num_heads=4, text_heads=4).trunk
    assert recipe.loads(recipe.dumps(one)) == one
    assert Pretrained(url=url, num_heads=4, text_heads=4).build().width == 64
