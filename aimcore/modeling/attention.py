"""Bidirectional, causal and prefix-causal attention: one function for all trunks, heads and decoders.

A mask is True where a query sees a key. Shape suffixes: B batch, H heads, N tokens, E values per head.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from aimcore.contracts.features import Attention


@attrs.frozen(eq=False)
class Mask:
    """Which keys each query sees. It is made once per forward pass and shared by all blocks."""

    allowed: Tensor | None = None
    """``[B or 1, 1, N or 1, N]`` bool (query, key), or None if every query sees every key."""
    is_causal: bool = False
    """Whether the mask is exactly the lower triangle, so that a fused kernel need not read it."""
    _biases: dict[tuple[torch.Size, torch.dtype], Tensor] = attrs.field(factory=dict, init=False, repr=False)

    def bias(self, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """``[B * H, N, N]`` for scores of ``shape`` ``[B, H, N, N]``: 0 where a query sees a key, -inf elsewhere.

        It is made once and kept for the other blocks. None if every query sees every key.
        """
        if self.allowed is None:
            return None
        if (shape, dtype) not in self._biases:
            bias_B1NN = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
            bias_B1NN.masked_fill_(~self.allowed, -math.inf)
            self._biases[shape, dtype] = bias_B1NN.expand(shape).flatten(0, 1)
        return self._biases[shape, dtype]


def mask_of(attention: Attention, num_tokens: int, device: torch.device) -> Mask:
    """Return the mask of ``attention`` over ``num_tokens`` tokens in reading order.

    Prefix-causal attention lets query i see key j when j <= i or j < prefix length (arXiv:2401.08541, section 4.2).
    A padded query sees itself, so that no row is empty.

    >>> attention = Attention(causal=True, prefix_length_B=torch.tensor([2]))
    >>> mask_of(attention, 3, torch.device("cpu")).allowed[0, 0].int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    allowed = None
    if attention.causal:
        steps_N = torch.arange(num_tokens, device=device)
        allowed = (steps_N <= steps_N[:, None])[None, None]
        if attention.prefix_length_B is not None:
            in_prefix_BN = steps_N < attention.prefix_length_B.to(device)[:, None]
            allowed = allowed | in_prefix_BN[:, None, None, :]
    is_causal = attention.causal and attention.prefix_length_B is None
    if attention.valid_BN is not None:
        own = torch.eye(num_tokens, dtype=torch.bool, device=device)
        valid_B11N = attention.valid_BN[:, None, None, :]
        allowed = (valid_B11N if allowed is None else allowed & valid_B11N) | own
        is_causal = False
    return Mask(allowed, is_causal)


def with_leading_tokens(attention: Attention, number: int) -> Attention:
    """Return ``attention`` for sequences with ``number`` tokens before those of patches, such as a class token.

    Every query sees them. In causal attention they see no patch after the prefix, so they reveal nothing to queries of
    patches.

    >>> with_leading_tokens(Attention(causal=True, prefix_length_B=torch.tensor([2])), 3).prefix_length_B.tolist()
    [5]
    """
    if number == 0:
        return attention
    prefix_length_B, valid_BN = attention.prefix_length_B, attention.valid_BN
    return Attention(
        causal=attention.causal,
        prefix_length_B=None if prefix_length_B is None else prefix_length_B + number,
        valid_BN=None if valid_BN is None else functional.pad(valid_BN, (number, 0), value=True),
    )


def attend(query_BHNE: Tensor, key_BHNE: Tensor, value_BHNE: Tensor, mask: Mask) -> Tensor:
    """Return scaled dot-product attention, ``[B, H, N, E]``, with scale 1 / sqrt(E)."""
    is_differentiated = any(tensor.requires_grad for tensor in (query_BHNE, key_BHNE, value_BHNE))
    if is_differentiated and query_BHNE.device.type == "cpu" and query_BHNE.dtype == torch.bfloat16:
        return _attend_explicitly(query_BHNE, key_BHNE, value_BHNE, mask)
    allowed = None if mask.is_causal else mask.allowed
    return functional.scaled_dot_product_attention(
        query_BHNE, key_BHNE, value_BHNE, attn_mask=allowed, is_causal=mask.is_causal
    )


def attention_probabilities(query_BHNE: Tensor, key_BHNE: Tensor, mask: Mask) -> Tensor:
    """``[B, H, N, N]``: attention of each query (third axis) to each key; rows add up to 1."""
    scores_BHNN = (query_BHNE * (1 / math.sqrt(query_BHNE.shape[-1]))) @ key_BHNE.transpose(-2, -1)
    if mask.allowed is not None:
        scores_BHNN = scores_BHNN.masked_fill(~mask.allowed, -math.inf)
    return scores_BHNN.softmax(-1)


def _attend_explicitly(query_BHNE: Tensor, key_BHNE: Tensor, value_BHNE: Tensor, mask: Mask) -> Tensor:
    # On CPUs the backward pass of the fused kernel is not faster in bfloat16, but plain matrix products are: forward
    # and backward together are 1.2 to 6 times faster here, forward alone 1.4 to 2 times slower
    # (benchmarks/attention.py). Scores and probabilities are rounded to bfloat16; softmax adds up in float32. The mask
    # is added by the product itself, which saves passes over the scores, forward and backward.
    query, key, value = (tensor.flatten(0, 1) for tensor in (query_BHNE, key_BHNE, value_BHNE))  # [B * H, N, E]
    shape = torch.Size((*query_BHNE.shape[:3], key_BHNE.shape[2]))
    scale, bias = 1 / math.sqrt(query.shape[-1]), mask.bias(shape, query.dtype)
    if bias is None:
        scores = torch.bmm(query * scale, key.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), value).reshape(query_BHNE.shape)
