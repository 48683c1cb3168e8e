"""The transformer head: blocks with the attention of the trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

from torch import Tensor, nn

from aimcore import Attention, Features, Head, HeadModule, Problem, at_least, component, positive
from aimcore.contracts import limits
from aimcore.modeling.attention import mask_of
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.layers import TransformerBlock, init_linears
from aimcore.modeling.positions import sincos_positions


@component("transformer", paper='arXiv:2401.08541, Table 3e ("Transformer")')
class TransformerHead(Head):
    """Sine-cosine positions, a projection to ``width``, ``depth`` transformer blocks, norm, outputs.

    Its attention is the trunk's: causal or prefix-causal, so that no prediction sees its target. The paper only says
    that it has the depth and width of the MLP head; heads of 128 values and no biases are taken from the trunk.
    """

    width: int = 2048
    depth: int = 12
    num_heads: int = 16
    ffn_ratio: int = 4
    norm_eps: float = 1e-6

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that the heads do not divide."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("depth", self.depth, 1, limits.DEPTH)
        yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        yield from at_least("ffn_ratio", self.ffn_ratio, 1, limits.RATIO)
        yield from positive("norm_eps", self.norm_eps, 1)
        if self.num_heads > 0 and self.width % self.num_heads:
            yield Problem("width", f"must be a multiple of num_heads ({self.num_heads}), got {self.width}")

    def build(self, in_width: int, num_outputs: int) -> TransformerHeadModule:
        """Build the module."""
        return TransformerHeadModule(self, in_width, num_outputs)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny instance."""
        return (cls(width=16, depth=2, num_heads=2),)


class TransformerHeadModule(HeadModule):
    """Transformer blocks that read all tokens; outputs are computed only at the scored positions."""

    def __init__(self, config: TransformerHead, in_width: int, num_outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, config.width, bias=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, config.ffn_ratio * config.width, eps=config.norm_eps)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.out = nn.Linear(config.width, num_outputs, bias=False)
        init_linears(self)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """``[M, K]`` predictions at ``where_M``."""
        predictions: Tensor = self.out(self._hidden(features, attention, where_M))  # [M, D] -> [M, K]
        return predictions

    def losses(
        self, features: Features, attention: Attention, where_M: Tensor, loss_of: Callable[[Tensor, slice], Tensor]
    ) -> Tensor:
        """``[M]`` losses at ``where_M``; many outputs are computed in chunks."""
        hidden_MD = self._hidden(features, attention, where_M)
        return losses_in_chunks(self.out, hidden_MD, self.out.out_features, loss_of)

    def _hidden(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        tokens_BND = features.tokens_BND
        positions_BND = sincos_positions(features.positions_BN2, tokens_BND.shape[-1])
        tokens_BND = self.project(tokens_BND + positions_BND.to(tokens_BND.dtype))  # D of the trunk -> D of the head
        mask = mask_of(attention, tokens_BND.shape[1], tokens_BND.device)
        for block in self.blocks:
            tokens_BND = block(tokens_BND, mask)
        # Only scored tokens pass through the output layer. [B * N, D] -> [M, D]
        normed_MD: Tensor = self.norm(tokens_BND.flatten(0, 1).index_select(0, where_M))
        return normed_MD
