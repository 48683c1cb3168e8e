"""Models of transformers whose tokens need care, and what ``aimcore inspect`` reports of other libraries' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from core.engine.toys import experiment
from torch import Tensor

from aimcore import AimcoreError, load_encoder
from aimcore.encoders.description import described
from aimcore.engine import build_module
from aimcore.engine.initial_weights import load_weights
from aimcore.engine.parameter_groups import parameter_groups
from aimcore_objectives import NoTraining
from aimcore_optimizers import AdamW
from aimcore_trunks import Pretrained
from aimcore_trunks.transformers_models import TransformersTrunk

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
IMAGES: dict[str, Any] = {**SIZES, "image_size": 16, "patch_size": 8}


def saved(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
def test_mae_reads_all_patches_in_their_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = saved(transformers.ViTMAEModel(transformers.ViTMAEConfig(**IMAGES)), tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet")
    assert (encoder.patch_size, encoder.trunk.num_extra) == (8, 1)
    pixels = torch.randn(2, 3, 16, 16)
    model.config.mask_ratio = 0.0  # noise that ascends keeps the order
    expected = model(pixels, noise=torch.arange(4.0).expand(2, 4)).last_hidden_state[:, 1:]
    features = encoder.features(pixels)
    assert isinstance(features, Tensor)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_registers_do_not_change_the_patch_size_of_small_grids(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(**IMAGES, num_register_tokens=4)
    model = saved(transformers.Dinov2WithRegistersModel(config), tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet")
    assert (encoder.patch_size, encoder.trunk.num_extra) == (8, 5)  # 4 patches, a class token and 4 registers
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.features(pixels), model(pixels).last_hidden_state[:, 5:], rtol=1e-4, atol=1e-5)
    rows = described(encoder)
    assert str(rows["library"]).endswith("Dinov2WithRegistersModel")
    assert rows["holds"] == "an image encoder of transformers: Dinov2WithRegistersModel"
    assert rows["layout"] == "transformers"
    assert rows["trunk"] == "transformers: width 16, depth 2, num_heads 2, patch_size 8"
    assert rows["tokens before patches"] == 5


POSITIONS, CLASS = "position_embeddings", "cls_token"
KEPT: dict[str, tuple[Any, set[str]]] = {
    "vit": (transformers.ViTConfig(**IMAGES), {POSITIONS, CLASS}),
    "registers": (
        transformers.Dinov2WithRegistersConfig(**IMAGES), {POSITIONS, CLASS, "mask_token", "register_tokens"}
    ),
    "beit": (
        transformers.BeitConfig(**IMAGES, use_relative_position_bias=True), {CLASS, "relative_position_bias_table"}
    ),
    "siglip": (transformers.SiglipVisionConfig(**IMAGES), {"position_embedding.weight", "probe"}),
    "convnext": (transformers.ConvNextV2Config(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2), {"grn"}),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_vectors_do_not_decay_and_matrices_do(name: str) -> None:
    config, kept = KEPT[name]
    module = TransformersTrunk(config=json.dumps(config.to_dict()), patch_size=8).build()
    groups = parameter_groups(module, AdamW())
    exempt = {id(value) for group in groups if not group.decays for value in group.parameters}
    for path, value in module.named_parameters():
        is_vector = value.dim() < 2 or any(one in path for one in kept)
        assert (id(value) in exempt) == is_vector, path
    assert all(any(one in path for path, _ in module.named_parameters()) for one in kept)


def test_shards_are_read_by_the_name_of_their_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(**IMAGES)).eval()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    encoder, pixels = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet"), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder.features(pixels), expected, rtol=1e-4, atol=1e-5)
    assert len(encoder.source.files) > 1
    trunk = Pretrained(url=f"transformers:{tmp_path}")
    assert trunk.pretrained().url == f"{tmp_path}/model.safetensors.index.json"
    torch.manual_seed(1)
    made = experiment(trunk=trunk, objective=NoTraining(), num_steps=0)
    begun = build_module(made)
    load_weights(made, begun)
    found = begun.trunk.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in encoder.module.state_dict().items())


def test_pickled_weights_are_read_by_the_name_of_their_folder(tmp_path: Path) -> None:
    model = transformers.Dinov2Model(transformers.Dinov2Config(**IMAGES)).eval()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet").width == 16


@torch.no_grad()
def test_images_of_other_sizes_get_interpolated_positions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = saved(transformers.ViTModel(transformers.ViTConfig(**IMAGES), add_pooling_layer=False), tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet")
    for side, interpolates in ((16, False), (32, True)):
        pixels = torch.randn(2, 3, side, side)
        expected = model(pixels, interpolate_pos_encoding=interpolates).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder.features(pixels), expected, rtol=1e-4, atol=1e-5)


def test_the_name_of_a_model_on_the_hub_is_no_folder() -> None:
    with pytest.raises(AimcoreError, match="takes the path of a folder, and downloads nothing"):
        load_encoder("transformers:google/vit-base-patch16-224")


def test_inspect_says_which_other_grids_are_read(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    saved(transformers.SwinModel(transformers.SwinConfig(image_size=32, patch_size=2, **sizes)), tmp_path / "swin")
    found = described(load_encoder(f"transformers:{tmp_path}/swin", preprocessing="imagenet"))["other resolutions"]
    assert found == "all that were tried: 9 x 9, 8 x 9, 16 x 16, 4 x 4 patches"
    mae = transformers.ViTMAEModel(transformers.ViTMAEConfig(**IMAGES))
    saved(mae, tmp_path / "mae")
    found = described(load_encoder(f"transformers:{tmp_path}/mae", preprocessing="imagenet"))["other resolutions"]
    assert found == "all that were tried: 3 x 3, 2 x 3, 4 x 4, 1 x 1 patches"


def test_inspect_says_that_some_grids_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(transformers.ViTModel(transformers.ViTConfig(**IMAGES)), tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet")
    monkeypatch.setattr(
        type(encoder.trunk), "problems_with", lambda _, grid: ["it reads even grids"] if grid.rows % 2 else []
    )
    assert described(encoder)["other resolutions"] == (
        "some: of 4 grids that were tried, it reads 2 x 3, 4 x 4 patches; it reads even grids"
    )
    monkeypatch.setattr(type(encoder.trunk), "problems_with", lambda *_: ["it reads no other grid"])
    assert described(encoder)["other resolutions"] == "none: it reads no other grid"


@torch.no_grad()
def test_several_class_tokens_are_not_counted_as_patches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = saved(transformers.PixioModel(transformers.PixioConfig(**IMAGES)), tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="imagenet")
    assert (encoder.patch_size, encoder.trunk.num_extra) == (8, 8)
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.features(pixels), model(pixels).last_hidden_state[:, 8:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "transformers:"])
def test_naflex_is_refused_by_its_name(prefix: str, tmp_path: Path) -> None:
    text = {**SIZES, "vocab_size": 40, "max_position_embeddings": 9, "projection_size": 16}
    vision = {**SIZES, "num_patches": 16, "patch_size": 8}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    saved(transformers.Siglip2Model(config), tmp_path)
    with pytest.raises(AimcoreError, match="NaFlex models of SigLIP 2 cannot be read"):
        load_encoder(f"{prefix}{tmp_path}")


def test_the_image_tower_of_naflex_is_refused_by_its_name(tmp_path: Path) -> None:
    config = transformers.Siglip2VisionConfig(**SIZES, num_patches=16, patch_size=8)
    saved(transformers.Siglip2VisionModel(config), tmp_path)
    with pytest.raises(AimcoreError, match="NaFlex models of SigLIP 2 cannot be read"):
        load_encoder(f"transformers:{tmp_path}")


@pytest.mark.parametrize(("kind", "reason"), [
    ("dinov2_with_register", r"has no model_type 'dinov2_with_register' \(did you mean 'dinov2_with_registers'"),
    (["vit"], r"has no model_type \['vit'\]"),
])  # fmt: skip
def test_a_model_that_transformers_does_not_know_is_one_line(kind: Any, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(AimcoreError, match=reason) as caught:
        load_encoder(f"transformers:{tmp_path}")
    assert len(str(caught.value)) < 500
