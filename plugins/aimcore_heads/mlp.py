"""The MLP head: N residual blocks that read each token alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Self

from torch import Tensor, nn

from aimcore import Attention, Features, Head, HeadModule, Problem, at_least, component, positive
from aimcore.contracts import limits
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.layers import MLPBlock, init_linears
from aimcore.modeling.positions import sincos_positions
from aimcore.modeling.row_counts import with_repeated_last


@component("mlp", paper="arXiv:2401.08541, section 4.2 and Tables 3e, 4")
class MLPHead(Head):
    """Sine-cosine positions, a projection to ``width``, ``depth`` pre-norm residual MLP blocks, norm, outputs.

    The defaults are the paper's form and size: positions "before the MLP head" and no biases. The authors' training
    code differs: ``positions="after_projection"``, ``projection_bias=True``, ``identity_attention=True`` and
    ``norm_eps=1e-5``; see :meth:`as_in_training_code`.
    """

    width: int = 2048
    depth: int = 12
    ffn_ratio: int = 4
    positions: Literal["before_projection", "after_projection"] = "before_projection"
    """Where the tokens' positions are added: at the trunk's width, or at the head's."""
    projection_bias: bool = False
    """Whether the projections into and out of the head have biases."""
    identity_attention: bool = False
    """Whether each block first adds its normalised input: an attention slot that is left as the identity."""
    norm_eps: float = 1e-6

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that sine-cosine positions cannot have."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("depth", self.depth, 1, limits.DEPTH)
        yield from at_least("ffn_ratio", self.ffn_ratio, 1, limits.RATIO)
        yield from positive("norm_eps", self.norm_eps, 1)
        if self.positions == "after_projection" and self.width % 4:
            yield Problem("width", f"sine-cosine positions need a multiple of 4, got {self.width}")

    @classmethod
    def as_in_training_code(cls, *, width: int = 2048, depth: int = 12) -> Self:
        """Return the form of the authors' training code."""
        return cls(
            width=width,
            depth=depth,
            positions="after_projection",
            projection_bias=True,
            identity_attention=True,
            norm_eps=1e-5,
        )

    def build(self, in_width: int, num_outputs: int) -> MLPHeadModule:
        """Build the module."""
        return MLPHeadModule(self, in_width, num_outputs)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Tiny instances of the paper's form and of the training code's."""
        return cls(width=16, depth=2), cls.as_in_training_code(width=16, depth=2)


class MLPHeadModule(HeadModule):
    """Residual MLP blocks; only the scored positions are computed."""

    def __init__(self, config: MLPHead, in_width: int, num_outputs: int) -> None:
        super().__init__()
        self.positions = config.positions
        self.project = nn.Linear(in_width, config.width, bias=config.projection_bias)
        self.blocks = nn.ModuleList(
            MLPBlock(
                config.width,
                config.ffn_ratio * config.width,
                identity_attention=config.identity_attention,
                eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.out = nn.Linear(config.width, num_outputs, bias=config.projection_bias)
        init_linears(self)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """``[M, K]`` predictions at ``where_M``; no token sees another."""
        predictions: Tensor = self.out(self._hidden(features, where_M))  # [M, D] -> [M, K]
        return predictions

    def losses(
        self, features: Features, attention: Attention, where_M: Tensor, loss_of: Callable[[Tensor, slice], Tensor]
    ) -> Tensor:
        """``[M]`` losses at ``where_M``; many outputs are computed in chunks."""
        return losses_in_chunks(self.out, self._hidden(features, where_M), self.out.out_features, loss_of)

    def _hidden(self, features: Features, where_M: Tensor) -> Tensor:
        # Only scored positions, because blocks do not mix tokens, in one of few numbers.
        tokens_MD, positions_M2 = features.at(with_repeated_last(where_M))
        if self.positions == "before_projection":
            tokens_MD = tokens_MD + sincos_positions(positions_M2, tokens_MD.shape[-1]).to(tokens_MD.dtype)
        tokens_MD = self.project(tokens_MD)  # D of the trunk -> D of the head
        if self.positions == "after_projection":
            tokens_MD = tokens_MD + sincos_positions(positions_M2, tokens_MD.shape[-1]).to(tokens_MD.dtype)
        for block in self.blocks:
            tokens_MD = block(tokens_MD)
        normed_MD: Tensor = self.norm(tokens_MD)
        return normed_MD[: len(where_M)]
