"""Masks by hand, and one result from every way of computing attention."""

from __future__ import annotations

import math

import pytest
import torch

from aimcore import BIDIRECTIONAL, CAUSAL, Attention
from aimcore.modeling.attention import attend, mask_of

CPU = torch.device("cpu")


def _rows(attention: Attention, image: int = 0) -> list[str]:
    allowed = mask_of(attention, 4, CPU).allowed
    assert allowed is not None
    return ["".join("x" if seen else "." for seen in row) for row in allowed[image, 0].tolist()]


def test_bidirectional_attention_needs_no_mask() -> None:
    mask = mask_of(BIDIRECTIONAL, 4, CPU)
    assert (mask.allowed, mask.is_causal) == (None, False)
    assert mask.bias(torch.Size([1, 1, 4, 4]), torch.float32) is None


def test_the_bias_of_a_mask_is_made_once_per_shape_and_type() -> None:
    mask = mask_of(Attention(causal=True, prefix_length_B=torch.tensor([1, 2])), 2, CPU)
    bias = mask.bias(torch.Size([2, 3, 2, 2]), torch.bfloat16)
    assert bias is not None
    hidden = -math.inf
    assert bias.float().tolist() == [*[[[0, hidden], [0, 0]]] * 3, *[[[0, 0], [0, 0]]] * 3]
    assert mask.bias(torch.Size([2, 3, 2, 2]), torch.bfloat16) is bias
    assert mask.bias(torch.Size([2, 1, 2, 2]), torch.bfloat16) is not bias


def test_causal_attention_sees_itself_and_what_came_before() -> None:
    assert _rows(CAUSAL) == ["x...", "xx..", "xxx.", "xxxx"]
    assert mask_of(CAUSAL, 4, CPU).is_causal


def test_prefix_causal_attention_sees_the_whole_prefix_of_its_own_image() -> None:
    attention = Attention(causal=True, prefix_length_B=torch.tensor([1, 3]))
    assert _rows(attention, 0) == ["x...", "xx..", "xxx.", "xxxx"]
    assert _rows(attention, 1) == ["xxx.", "xxx.", "xxx.", "xxxx"]
    assert not mask_of(attention, 4, CPU).is_causal


def test_padding_is_seen_by_nobody_but_itself() -> None:
    valid_BN = torch.tensor([[True, True, False, False]])
    assert _rows(Attention(valid_BN=valid_BN)) == ["xx..", "xx..", "xxx.", "xx.x"]
    assert _rows(Attention(causal=True, valid_BN=valid_BN)) == ["x...", "xx..", "xxx.", "xx.x"]


@pytest.mark.parametrize(
    "attention", [BIDIRECTIONAL, CAUSAL, Attention(causal=True, prefix_length_B=torch.tensor([2, 5]))]
)
def test_attention_is_the_softmax_average_in_float32_and_bfloat16(attention: Attention) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 16).unbind(0)
    mask = mask_of(attention, 7, CPU)
    scores = query @ key.transpose(-2, -1) / 4
    if mask.allowed is not None:
        scores = scores.masked_fill(~mask.allowed, -torch.inf)
    expected = scores.softmax(-1) @ value
    torch.testing.assert_close(attend(query, key, value, mask), expected, rtol=1e-5, atol=1e-5)
    for differentiated in (False, True):
        given = [tensor.bfloat16().requires_grad_(differentiated) for tensor in (query, key, value)]
        # bfloat16 keeps 8 bits: 2^-8 of values up to about 3.
        torch.testing.assert_close(attend(*given, mask).float().detach(), expected, rtol=0, atol=3e-2)
