"""The released encoders' outputs, reproduced; their checkpoints' shapes, matched."""

from __future__ import annotations

import pytest
import torch
from golden_files import assert_golden, settings, tensors

from aimcore import BIDIRECTIONAL, Attention, Reading
from aimcore.contracts.images import images_of, order_of
from aimcore_orderings import Checkerboard
from aimcore_trunks import ViT, aim, aimv2, from_released
from aimcore_trunks.released import UnknownLayout
from aimcore_trunks.vit import ViTModule

ALL = (0, 1, 2, 3)


def _aim_v1() -> ViTModule:
    return _loaded(ViT(width=64, depth=4, num_heads=4), "aim_v1")


def _aim_v2(name: str) -> ViTModule:
    learned = name == "aim_v2"
    config = ViT(
        width=64, depth=4, num_heads=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", ffn_width=160,
        positions="learned" if learned else "sincos", grid=(4, 4) if learned else None,
    )  # fmt: skip
    return _loaded(config, name)


def _loaded(config: ViT, name: str) -> ViTModule:
    module = config.build()
    weights = {key: value for key, value in tensors(f"{name}.weights").items() if not key.startswith("head.")}
    module.load_state_dict(from_released(weights))
    return module.eval()


@torch.no_grad()
def test_aim_reproduces_every_block_and_the_final_norm_of_the_released_encoder() -> None:
    golden = tensors("aim_v1.io")
    features = _aim_v1()(images_of(golden["pixels"], 14), Reading(attention=BIDIRECTIONAL, layers=ALL))
    for index in ALL:
        assert_golden(features.layers[index], golden[f"block_{index}"])
    assert_golden(features.tokens_BND, golden["normed"])


@torch.no_grad()
def test_aim_reproduces_prefix_causal_attention() -> None:
    golden, pixels = tensors("aim_v1_prefix.io"), tensors("aim_v1.io")["pixels"]
    attention = Attention(causal=True, prefix_length_B=golden["prefix_length"])
    features = _aim_v1()(images_of(pixels, 14), Reading(attention=attention, layers=ALL))
    for index in ALL:
        assert_golden(features.layers[index], golden[f"block_{index}"])
    assert_golden(features.tokens_BND, golden["features"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["aim_v2", "aim_v2_native"])
def test_aimv2_reproduces_every_block_and_the_final_norm_of_the_released_encoder(name: str) -> None:
    golden = tensors(f"{name}.io")
    features = _aim_v2(name)(images_of(golden["pixels"], 14), Reading(layers=ALL))
    for index in ALL:
        assert_golden(features.layers[index], golden[f"block_{index}"])
    assert_golden(features.tokens_BND, golden["features"])


@torch.no_grad()
def test_the_native_encoder_reads_a_larger_rectangle() -> None:
    golden = tensors("aim_v2_native.io")
    features = _aim_v2("aim_v2_native")(images_of(golden["pixels_larger"], 14), Reading())
    assert_golden(features.tokens_BND, golden["features_larger"])


@torch.no_grad()
def test_another_reading_order_gives_the_same_features_once_back_in_raster() -> None:
    golden = tensors("aim_v1.io")
    images = images_of(golden["pixels"], 14)
    reading = Reading(order_BN=order_of(Checkerboard().permutation, images), layers=(3,))
    features = _aim_v1()(images, reading)
    assert not torch.allclose(features.tokens_BND, golden["normed"], atol=1e-3)
    assert_golden(features.raster().tokens_BND, golden["normed"])
    assert_golden(features.raster().layers[0], golden["block_3"])


RELEASED = settings("released_checkpoints")
SIZES = {
    "aim_600M": aim("0.6B"),
    "aim_1B": aim("1B"),
    "aim_3B": aim("3B"),
    "aim_7B": aim("7B"),
    **{
        f"aimv2_{name}_{size}": aimv2(ours, image_size=size)
        for name, ours in {"large": "L", "huge": "H", "1B": "1B", "3B": "3B"}.items()
        for size in (224, 336, 448)
    },
    "aimv2_large_native": aimv2("L", image_size=None),
}


@pytest.mark.parametrize("name", sorted(SIZES))
def test_named_sizes_agree_with_the_released_shapes_and_counts(name: str) -> None:
    config = SIZES[name]
    with torch.device("meta"):
        module = config.build()
        state = {
            key.replace("{i}", str(index)): torch.empty(shape)
            for key, shape in RELEASED[name]["shapes"].items()
            if not key.startswith("head.")
            for index in range(config.depth if "{i}" in key else 1)
        }
    module.load_state_dict(from_released(state), assign=True)
    count = sum(value.numel() for value in state.values())
    assert sum(parameter.numel() for parameter in module.parameters()) == count


@pytest.mark.parametrize(
    ("size", "count"), [("0.6B", 680_535_552), ("1B", 1_209_370_624), ("3B", 2_720_025_600), ("7B", 6_445_404_160)]
)
def test_aim_trunks_have_the_parameters_of_the_released_ones(size: str, count: int) -> None:
    with torch.device("meta"):
        module = aim(size).build()  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in module.parameters()) == count


@pytest.mark.parametrize("name", [name for name in sorted(SIZES) if name.startswith("aimv2")])
def test_aimv2_trunks_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        module = SIZES[name].build()
    assert sum(parameter.numel() for parameter in module.parameters()) == RELEASED[name]["num_parameters"]


def test_weights_of_something_else_are_refused_by_name() -> None:
    with pytest.raises(UnknownLayout, match=r"no entry of an AIM or AIMv2 encoder among \['layer1"):
        from_released({"layer1.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(UnknownLayout, match=r"unknown entry 'blocks\.0\.ls1\.gamma' with shape \(4,\)"):
        from_released({"trunk.blocks.0.ls1.gamma": torch.zeros(4)})
