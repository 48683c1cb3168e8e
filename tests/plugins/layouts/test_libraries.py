"""Small random models of transformers and timm give the same outputs here, from the files that they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from aimcore import load_encoder

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _stirred(model: nn.Module) -> nn.Module:
    """Random norms and biases too: fresh ones would hide that two of them are confused."""
    for value in model.parameters():
        nn.init.normal_(value, 0.5 if value.dim() == 1 else 0.0, 0.1)
    return model.eval()


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("native", [False, True])
@torch.no_grad()
def test_the_vision_model_of_transformers(native: bool, tmp_path: Path) -> None:
    config = transformers.Aimv2VisionConfig(**SIZES, image_size=56, use_head=False, is_native=native)
    model = _stirred(transformers.Aimv2VisionModel(config))
    model.save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}).save_pretrained(
        tmp_path
    )
    encoder = load_encoder(str(tmp_path))
    assert (encoder.trunk.num_heads, encoder.source.layout) == (4, "aimv2_transformers")
    assert encoder.known_preprocessing.source == "preprocessor_config.json"
    pixels = torch.randn(2, 3, 56, 84 if native else 56)
    _close(encoder.features(pixels), model(pixels).last_hidden_state)
    assert encoder.image_size == (None if native else 56)


@torch.no_grad()
def test_shards_of_transformers(tmp_path: Path) -> None:
    config = transformers.Aimv2VisionConfig(**SIZES, image_size=56, use_head=False)
    model = _stirred(transformers.Aimv2VisionModel(config))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    encoder = load_encoder(str(tmp_path))
    assert len(encoder.source.files) > 2
    pixels = torch.randn(1, 3, 56, 56)
    _close(encoder.features(pixels), model(pixels).last_hidden_state)


@torch.no_grad()
def test_the_two_towers_of_transformers(tmp_path: Path) -> None:
    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": 6, "eos_token_id": 19, "num_attention_heads": 2}
    config = transformers.Aimv2Config(vision_config={**SIZES, "image_size": 28}, text_config=text, projection_dim=24)
    model = _stirred(transformers.Aimv2Model(config))
    model.logit_scale.data.fill_(1.5)
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    pixels, ids_BT = torch.randn(3, 3, 28, 28), torch.tensor([[4, 5, 19, 0, 0, 0], [7, 8, 9, 1, 2, 19]])
    # Without padding in the mask, transformers 5 attends bidirectionally, and its own outputs change.
    mask_BT = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    theirs = model(input_ids=ids_BT, pixel_values=pixels, attention_mask=mask_BT)
    _close(encoder.embed_images(pixels), theirs.image_embeds)
    _close(encoder.embed_texts(ids_BT), theirs.text_embeds)
    _close(encoder.zero_shot(pixels, ids_BT), theirs.logits_per_image)


@torch.no_grad()
def test_the_model_of_timm(tmp_path: Path) -> None:
    small = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5, "img_size": 56}
    model = _stirred(timm.create_model("aimv2_large_patch14_224", num_classes=0, **small))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "aimv2_large_patch14_224", "num_features": 32, "model_args": small,
              "pretrained_cfg": {**model.pretrained_cfg, "input_size": [3, 56, 56]}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    encoder = load_encoder(str(tmp_path))
    pixels = torch.randn(2, 3, 56, 56)
    _close(encoder.features(pixels), model.forward_features(pixels))
    _close(encoder.pool(pixels, layers=()), model(pixels))
    assert encoder.source.licence == "apple-ascl"
