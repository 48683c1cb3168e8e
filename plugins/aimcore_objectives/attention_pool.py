"""Pooling of an image's tokens by the attention of one learned query.

Shape suffixes: B batch, N patches, D width, H heads, E values per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore import Features
from aimcore.modeling.layers import init_linears


def pooled_by_attention(query_D: Tensor, key_BND: Tensor, value_BND: Tensor, valid_BN: Tensor, heads: int) -> Tensor:
    """Return ``[B, D]``: the values of each image's own tokens, weighted by the attention of the query."""
    key_BHNE, value_BHNE = _heads(key_BND, heads), _heads(value_BND, heads)
    query_H1E = query_D.to(key_BHNE.dtype).reshape(heads, 1, -1)
    scores_BH1N: Tensor = query_H1E @ key_BHNE.transpose(-2, -1) / query_H1E.shape[-1] ** 0.5
    scores_BH1N = scores_BH1N.masked_fill(~valid_BN[:, None, None], -torch.inf)
    pooled_BD: Tensor = (scores_BH1N.softmax(-1) @ value_BHNE).flatten(1)
    return pooled_BD


def _heads(tokens_BND: Tensor, heads: int) -> Tensor:
    # [B, N, D] -> [B, N, H, E] -> [B, H, N, E]
    return tokens_BND.reshape(*tokens_BND.shape[:2], heads, -1).transpose(1, 2)


class AttentionPool(nn.Module):
    """The pool of arXiv:2401.08541, equation 4: one learned query, linear keys and values without bias.

    Departure from the released probe: there is no BatchNorm, which equation 4 does not have either. It would make the
    loss of an image depend on the other images of its batch; here tokens come from the trunk's final norm.
    """

    no_weight_decay = frozenset({"query"})

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.query, std=0.02)
        init_linears(self)

    def forward(self, features: Features) -> Tensor:
        """``[B, D]``."""
        key_BND, value_BND = self.key(features.tokens_BND), self.value(features.tokens_BND)
        return pooled_by_attention(self.query, key_BND, value_BND, features.valid_BN, self.num_heads)
