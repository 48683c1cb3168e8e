"""The two towers of contrastive training: one embedding per image, one per caption.

Shape suffixes: B batch, N patches, T tokens, D width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import CAUSAL, Features, Problem, Text, TextTokenizer, at_least, settings
from aimcore.contracts import limits
from aimcore.contracts.component import Checked
from aimcore.modeling.attention import mask_of
from aimcore.modeling.layers import TransformerBlock, init_linears, make_norm, swiglu_width
from aimcore_decoders.joint import size_problems
from aimcore_objectives.attention_pool import pooled_by_attention
from aimcore_objectives.steps import at_least_float32


@settings
class TextTower(Checked):
    """A causal transformer with SwiGLU and RMSNorm, read at the first end token.

    The defaults are the text tower of AIMv2's released LiT model. The last projection of both towers has the default
    initialization of torch, as in the authors' training code.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 6
    ffn_width: int | None = None
    """Hidden width of the SwiGLU; by default 8/3 x width rounded up to a multiple of 256 (2048 for 768)."""
    norm_eps: float = 1e-5

    @property
    def hidden_width(self) -> int:
        """Width inside the SwiGLU."""
        return self.ffn_width or swiglu_width(self.width)

    def problems(self) -> Iterable[Problem]:
        """Yield problems of sizes, and of heads that do not divide the width."""
        yield from size_problems(self.width, self.depth, self.num_heads, self.norm_eps)
        if self.ffn_width is not None:
            yield from at_least("ffn_width", self.ffn_width, 1, limits.RATIO * limits.WIDTH)


class TextTowerModule(nn.Module):
    """The module of :class:`TextTower`: captions to unit vectors."""

    no_weight_decay = frozenset({"positions"})

    def __init__(self, config: TextTower, tokenizer: TextTokenizer, context_length: int, embedding_width: int) -> None:
        super().__init__()
        self.end_id = tokenizer.end_id
        self.embedding = nn.Embedding(tokenizer.vocabulary_size, config.width)
        self.positions = nn.Parameter(torch.empty(context_length, config.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.width,
                config.num_heads,
                config.hidden_width,
                norm="rms_norm",
                ffn="swiglu",
                eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = make_norm("rms_norm", config.width, config.norm_eps)
        self.project = nn.Linear(config.width, embedding_width, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        init_linears(self.blocks)

    def forward(self, text: Text) -> Tensor:
        """``[B, E]`` of unit length, in float32 or better."""
        device = self.positions.device
        tokens_BTD = self.embedding(text.ids_BT.to(device)) + self.positions[: text.ids_BT.shape[1]]
        mask = mask_of(CAUSAL, tokens_BTD.shape[1], device)
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, mask)
        last_BD = self.norm(tokens_BTD[torch.arange(tokens_BTD.shape[0], device=device), self._last(text).to(device)])
        return functional.normalize(at_least_float32(self.project(last_BD)), dim=-1)

    def _last(self, text: Text) -> Tensor:
        """The position of the first end token of each caption; without one, that of its last token."""
        last_B = text.valid_BT.sum(1).clamp(min=1) - 1
        if self.end_id is None:
            return last_B
        is_end_BT = text.ids_BT == self.end_id
        return torch.where(is_end_BT.any(1), is_end_BT.int().argmax(1), last_B)


class ImageTowerModule(nn.Module):
    """Image features to unit vectors: AIM's attention pool (without BatchNorm), a linear layer, a projection."""

    no_weight_decay = frozenset({"query"})

    def __init__(self, width: int, num_heads: int, embedding_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.linear = nn.Linear(width, width)
        self.project = nn.Linear(width, embedding_width, bias=False)
        nn.init.normal_(self.query, std=0.02)
        for part in (self.key, self.value, self.linear):
            init_linears(part)

    def forward(self, features: Features) -> Tensor:
        """``[B, E]`` of unit length, in float32 or better."""
        key_BND, value_BND = self.key(features.tokens_BND), self.value(features.tokens_BND)
        pooled_BD = pooled_by_attention(self.query, key_BND, value_BND, features.valid_BN, self.num_heads)
        return functional.normalize(at_least_float32(self.project(self.linear(pooled_BD))), dim=-1)
