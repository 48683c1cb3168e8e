"""What a ViT's last block attends to, recomputed for pictures."""

from __future__ import annotations

import pytest
import torch

from aimcore import CAUSAL, Attention, Images, Reading
from aimcore.contracts.images import images_of
from aimcore.modeling.attention import mask_of
from aimcore.modeling.layers import SelfAttention
from aimcore_trunks import ViT
from aimcore_trunks.vit import ViTModule


@pytest.fixture
def module() -> ViTModule:
    torch.manual_seed(0)
    return ViT(width=16, depth=3, num_heads=2, patch_size=2).build()


@pytest.fixture
def images() -> Images:
    return images_of(torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(0)), 2)


def test_every_query_shares_out_all_of_its_attention(module: ViTModule, images: Images) -> None:
    maps_BHNN = module.attention_maps(images, Reading())
    assert maps_BHNN.shape == (3, 2, 6, 6)
    torch.testing.assert_close(maps_BHNN.sum(-1), torch.ones(3, 2, 6))
    assert bool((maps_BHNN > 0).all())


def test_causal_maps_are_empty_above_the_diagonal(module: ViTModule, images: Images) -> None:
    maps_BHNN = module.attention_maps(images, Reading(attention=CAUSAL, order_BN=torch.arange(6).flip(0).expand(3, -1)))
    assert torch.equal(maps_BHNN.triu(1), torch.zeros_like(maps_BHNN))
    torch.testing.assert_close(maps_BHNN[:, :, 0, 0], torch.ones(3, 2))


def test_the_maps_are_the_last_block_s(module: ViTModule, images: Images) -> None:
    before = module.attention_maps(images, Reading())
    with torch.no_grad():
        module.blocks[-1].attention.query.weight.zero_()
    after = module.attention_maps(images, Reading())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, torch.full_like(after, 1 / 6))


def test_looking_leaves_the_trunk_as_it_was(module: ViTModule, images: Images) -> None:
    before = module(images, Reading()).tokens_BND
    module.attention_maps(images, Reading())
    assert torch.equal(module(images, Reading()).tokens_BND, before)
    assert not module.blocks[-1].attention._forward_pre_hooks


@pytest.mark.parametrize("attention", [Attention(), CAUSAL, Attention(causal=True, prefix_length_B=torch.tensor([3]))])
def test_probabilities_are_those_that_attention_mixes_values_by(attention: Attention) -> None:
    torch.manual_seed(0)
    layer, tokens_BND = SelfAttention(8, 2, bias=True), torch.randn(1, 5, 8)
    mask = mask_of(attention, 5, torch.device("cpu"))
    values_BHNE = layer.value(tokens_BND).reshape(1, 5, 2, 4).transpose(1, 2)
    mixed = layer.probabilities(tokens_BND, mask) @ values_BHNE
    torch.testing.assert_close(layer.out(mixed.transpose(1, 2).flatten(2)), layer(tokens_BND, mask))
