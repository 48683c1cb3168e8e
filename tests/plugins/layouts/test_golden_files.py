"""The authors' outputs are reproduced from files in every layout."""

from __future__ import annotations

from pathlib import Path

import other_layouts as other
import pytest
import torch
from golden_files import FOLDER, assert_golden, tensors
from safetensors.torch import save_file
from torch import Tensor

from aimcore import Attention, Encoder, Features, PatchGrid, Reading, Text, load_encoder
from aimcore.contracts.images import images_of
from aimcore_objectives import Multimodal, NextPatch


def _file(name: str) -> str:
    return str(FOLDER / f"{name}.weights.safetensors")


def _written(folder: Path, state: dict[str, Tensor] | bytes, name: str = "anything.bin") -> str:
    path = folder / name
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        save_file(state, path)
    return str(path)


def _assert_features(encoder: Encoder, name: str) -> None:
    golden = tensors(f"{name}.io")
    assert_golden(encoder.features(golden["pixels"]), golden["normed" if name == "aim_v1" else "features"])
    blocks = encoder.features(golden["pixels"], layers=range(4))
    for index, block_BND in enumerate(blocks):
        assert_golden(block_BND, golden[f"block_{index}"])
    (last_BND,) = encoder.features(golden["pixels"], layers=[-1])
    assert torch.equal(last_BND, blocks[3])


@pytest.mark.parametrize("name", ["aim_v1", "aim_v2", "aim_v2_native"])
def test_files_of_the_authors(name: str) -> None:
    _assert_features(load_encoder(_file(name), num_heads=4), name)


def test_a_pickle_of_the_trunk_and_one_of_the_probe_give_the_logits(tmp_path: Path) -> None:
    weights, golden = tensors("aim_v1.weights"), tensors("aim_v1.io")
    parts: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
    for name, value in weights.items():
        parts[name.startswith("head.")][name] = value
    torch.save(parts[False], tmp_path / "trunk.pth")
    torch.save(parts[True], tmp_path / "head.pth")
    trunk, head = str(tmp_path / "trunk.pth"), str(tmp_path / "head.pth")
    encoder = load_encoder(trunk, head=head, num_heads=4, probe_layers=(1, 2))
    _assert_features(encoder, "aim_v1")
    assert_golden(encoder.classify(golden["pixels"]), golden["logits"])
    alone = load_encoder(trunk, num_heads=4)
    _assert_features(alone, "aim_v1")
    assert alone.probe is None
    means = torch.stack([golden[f"block_{index}"] for index in range(4)]).mean((0, 2))  # the last six, or all
    assert_golden(alone.pool(golden["pixels"]), means)


@pytest.mark.parametrize("name", ["aim_v2", "aim_v2_native"])
@pytest.mark.parametrize("layout", ["transformers_vision", "timm", "mlx", "flax"])
def test_files_of_other_libraries(name: str, layout: str, tmp_path: Path) -> None:
    state = getattr(other, layout)(tensors(f"{name}.weights"))
    _assert_features(load_encoder(_written(tmp_path, state), num_heads=4), name)


def test_the_native_encoder_reads_a_larger_rectangle() -> None:
    golden = tensors("aim_v2_native.io")
    encoder = load_encoder(_file("aim_v2_native"), num_heads=4)
    assert_golden(encoder.features(golden["pixels_larger"]), golden["features_larger"])
    assert encoder.image_size is None


@pytest.mark.parametrize("layout", ["authors", "transformers_lit", "mlx", "flax"])
def test_both_towers_of_the_lit_model(layout: str, tmp_path: Path) -> None:
    weights, golden = tensors("aim_v2_lit.weights"), tensors("aim_v2_lit.io")
    state = weights if layout == "authors" else getattr(other, layout)(weights)
    encoder = load_encoder(_written(tmp_path, state), num_heads=4, text_heads=4)
    ids_BT = golden["input_ids"]
    assert_golden(encoder.embed_images(golden["pixels"]), golden["image_embeds"])
    assert_golden(encoder.embed_texts(ids_BT), golden["text_embeds"])
    assert_golden(encoder.zero_shot(golden["pixels"], ids_BT), golden["logits_per_image"])
    assert encoder.objective_module is not None
    assert encoder.objective_module.trunk is encoder.module


@torch.no_grad()
def test_encoder_and_decoder_of_the_training_code() -> None:
    golden = tensors("aim_v2_pretraining.io")
    encoder = load_encoder(_file("aim_v2_pretraining"), num_heads=4, text_heads=4)
    assert isinstance(encoder.objective, Multimodal)
    assert encoder.objective_module is not None
    attention = Attention(causal=True, prefix_length_B=golden["prefix_length"])
    features = encoder.module(images_of(golden["pixels"], 14), Reading(attention=attention))
    text = Text(ids_BT=golden["text_ids"], valid_BT=golden["text_ids"] != 1)
    decoder = encoder.objective_module.decoder
    patches_MK, logits_MV = decoder(features, attention, text, torch.arange(48), torch.arange(27))
    assert_golden(patches_MK, golden["image_predictions"].flatten(0, 1))
    assert_golden(logits_MV, golden["text_logits"][:, :9].flatten(0, 1))


@torch.no_grad()
def test_encoder_and_head_of_the_training_code(tmp_path: Path) -> None:
    golden = tensors("mlp_head.io")
    state = other.training_code(tensors("aim_v1.weights"), tensors("mlp_head.weights"))
    encoder = load_encoder(_written(tmp_path, state), num_heads=4)
    assert isinstance(encoder.objective, NextPatch)
    assert encoder.trunk.norm_eps == 1e-5  # that of the training code; the released encoders have 1e-6
    assert encoder.objective_module is not None
    images = images_of(torch.zeros(len(golden["features"]), 3, 56, 56), 14)
    features = Features(golden["features"], images.positions_BN2, images.valid_BN)
    where_M = torch.arange(golden["features"][..., 0].numel())
    predictions_MK = encoder.objective_module.head(features, Attention(), where_M)
    assert_golden(predictions_MK, golden["predictions"].flatten(0, 1))
    blocks = tensors("aim_v1.io")
    # The other epsilon changes tokens of unit variance by a few millionths.
    torch.testing.assert_close(encoder.features(blocks["pixels"]), blocks["normed"], rtol=1e-3, atol=1e-3)
    assert images.grid == PatchGrid(4, 4)


def test_positions_that_are_not_fixed_ones_are_refused_in_a_file_of_aims_training_code(tmp_path: Path) -> None:
    state = other.training_code(tensors("aim_v1.weights"), tensors("mlp_head.weights"))
    state["preprocessor.blocks.0.pos_embed"][0, 3, 5] += 0.1
    with pytest.raises(ValueError, match="the positions in the file are not the sine-cosine ones"):
        load_encoder(_written(tmp_path, state), num_heads=4)
