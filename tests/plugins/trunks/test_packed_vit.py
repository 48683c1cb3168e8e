"""A ViT with packed weights gives the features of the plain one, for every form, reading and type of numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from aimcore import Attention, Images, PatchGrid, Reading, TrunkModule
from aimcore.contracts.images import images_of
from aimcore.evaluation.inference_copy import InferenceCopy
from aimcore_trunks import ViT
from aimcore_trunks.packed_vit import InferenceViT
from aimcore_trunks.packed_vit import _packed as packed_weights
from aimcore_trunks.vit import ViTModule

AIM = ViT(width=32, depth=3, num_heads=2, patch_size=2, attention_bias=True, ffn_bias=True)
AIMV2 = attrs.evolve(
    AIM, norm="rms_norm", norm_eps=1e-2, ffn="swiglu", ffn_width=48, attention_bias=False, ffn_bias=False,
    positions="learned", grid=(4, 4),
)  # fmt: skip
EXTRA = attrs.evolve(AIMV2, num_extra=2, mask_token=True)
BATCH = 40
"""More than a block reads at a time: 256 tokens (float32) or 256 per thread, of 16 per image."""

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="packed products need MKL")
bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="bfloat16 products need AVX-512 or better"
)


def module(trunk: ViT) -> ViTModule:
    """Weights of all kinds that matter: residual sums, gains and biases are neither 0 nor 1."""
    torch.manual_seed(0)
    built = trunk.build().eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3) if parameter.dim() == 1 else nn.init.normal_(parameter, std=0.2)
    return built


def images(batch: int = BATCH, side: int = 8) -> Images:
    torch.manual_seed(1)
    return images_of(torch.randn(batch, 3, side, side), patch_size=2)


def readings() -> dict[str, Reading]:
    torch.manual_seed(2)
    order_BN = torch.stack([torch.randperm(16) for _ in range(BATCH)])
    valid_BN = torch.rand(BATCH, 16) > 0.3
    prefixes_B = torch.randint(1, 15, (BATCH,))
    return {
        "layers": Reading(layers=(2, 0)),
        "causal": Reading(attention=Attention(causal=True), order_BN=order_BN),
        "prefix": Reading(attention=Attention(causal=True, prefix_length_B=prefixes_B)),
        "some keys": Reading(attention=Attention(valid_BN=valid_BN)),
        "subset": Reading(order_BN=order_BN[:, :5]),
    }


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


def packed(plain: TrunkModule, products: torch.dtype | None = None) -> TrunkModule:
    found = plain.for_inference(products)
    assert isinstance(found, InferenceViT)
    return found


@pytest.mark.parametrize("name", list(readings()))
@pytest.mark.parametrize("trunk", [AIM, AIMV2, EXTRA], ids=["aim", "aimv2", "extra"])
@torch.no_grad()
def test_float32_features_are_those_of_the_plain_module(trunk: ViT, name: str):
    plain, reading = module(trunk), readings()[name]
    expected, found = plain(images(), reading), packed(plain)(images(), reading)
    assert difference(found.tokens_BND, expected.tokens_BND) < 1e-5
    assert len(found.layers) == len(expected.layers)
    for mine, other in zip(found.layers, expected.layers, strict=True):
        assert difference(mine, other) < 1e-5
    if trunk.num_extra:
        assert difference(found.extra_BRD, expected.extra_BRD) < 1e-5


@torch.no_grad()
def test_masked_patches_and_padded_images_of_other_grids():
    plain = module(EXTRA)
    reading = Reading(masked_BN=torch.rand(BATCH, 16) > 0.5)
    assert difference(packed(plain)(images(), reading).tokens_BND, plain(images(), reading).tokens_BND) < 1e-5
    grids = (PatchGrid(2, 3), PatchGrid(4, 4), PatchGrid(1, 5))
    native, mixed = module(AIM), Images(torch.randn(3, 16, 12), grids, patch_size=2)
    expected, found = native(mixed, Reading()), packed(native)(mixed, Reading())
    assert difference(found.tokens_BND[expected.valid_BN], expected.tokens_BND[expected.valid_BN]) < 1e-5


@pytest.mark.parametrize("trunk", [AIM, attrs.evolve(AIMV2, positions="sincos", grid=None)], ids=["aim", "aimv2"])
@pytest.mark.parametrize("side", [32, 34, 46])  # 256, 289 and 529 tokens: packed; not packed; split in bfloat16
@torch.no_grad()
def test_one_image_of_many_tokens(trunk: ViT, side: int):
    plain = module(trunk)
    expected_BND = plain(images(1, side), Reading()).tokens_BND
    assert difference(packed(plain)(images(1, side), Reading()).tokens_BND, expected_BND) < 1e-5
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert difference(packed(plain, torch.bfloat16)(images(1, side), Reading()).tokens_BND, expected_BND) < 0.02


@bfloat16
@pytest.mark.parametrize("trunk", [AIM, AIMV2], ids=["aim", "aimv2"])
@torch.no_grad()
def test_bfloat16_is_as_close_to_float32_as_the_plain_module(trunk: ViT):
    plain, reading = module(trunk), Reading(attention=Attention(causal=True))
    exact_BND = plain(images(), reading).tokens_BND
    with torch.autocast("cpu", torch.bfloat16):
        mixed_BND = plain(images(), reading).tokens_BND
        found_BND = packed(plain, torch.bfloat16)(images(), reading).tokens_BND
    assert found_BND.dtype == mixed_BND.dtype == torch.float32
    assert 0 < difference(found_BND, exact_BND) < 1.1 * difference(mixed_BND, exact_BND)
    rounded = copy.deepcopy(plain).bfloat16()
    found_BND = packed(rounded)(images(), reading).tokens_BND
    assert found_BND.dtype == torch.bfloat16
    assert difference(found_BND, exact_BND) < 1.1 * difference(rounded(images(), reading).tokens_BND, exact_BND)


@bfloat16
def test_gelu_in_bfloat16_is_the_exact_one():
    identity = nn.Linear(32, 32, bias=False)
    nn.init.eye_(identity.weight)
    found = packed_weights([identity], None, torch.bfloat16)(torch.full((4, 32), -3.0, dtype=torch.bfloat16), "gelu")
    # -3 times the normal distribution function at -3; the approximation with tanh gives -0.00364
    assert found.flatten().tolist() == pytest.approx([-0.00405] * 128, rel=0.01)


@torch.no_grad()
def test_a_copy_keeps_its_weights_and_another_is_made_when_they_change():
    plain = module(AIMV2)
    kept, copies = packed(plain), InferenceCopy(plain)
    before_BND = kept(images(), Reading()).tokens_BND
    first = copies.current()
    assert copies.current() is first
    for parameter in plain.parameters():
        parameter.mul_(1.5)
    assert torch.equal(kept(images(), Reading()).tokens_BND, before_BND)
    second = copies.current()
    assert second is not first
    assert difference(second(images(), Reading()).tokens_BND, plain(images(), Reading()).tokens_BND) < 1e-5


def test_no_gradient_passes():
    plain = module(AIM)
    assert not packed(plain)(images(), Reading()).tokens_BND.requires_grad
    assert plain(images(), Reading()).tokens_BND.requires_grad


class Adapted(nn.Linear):
    """A layer that packed weights would ignore."""


def _adapt(plain: ViTModule) -> None:
    plain.blocks[1].ffn.fc2 = Adapted(96, 32)  # type: ignore[assignment,union-attr]


def _partition(plain: ViTModule) -> None:
    plain.blocks[1].ffn.fc2.weight = nn.Parameter(torch.empty(0))  # type: ignore[assignment,union-attr]


@pytest.mark.parametrize(
    "change", [_adapt, _partition, ViTModule.half, ViTModule.double, lambda plain: plain.to("meta")]
)
def test_what_cannot_be_packed_reads_as_it_is(change: Callable[[ViTModule], Any]):
    plain = module(AIM)
    change(plain)
    assert plain.for_inference() is plain


def test_a_module_with_hooks_reads_itself():
    plain = module(AIM)
    copies = InferenceCopy(plain)
    handle = plain.blocks[0].register_forward_hook(lambda *_: None)
    assert copies.current() is plain
    handle.remove()
    assert copies.current() is not plain
