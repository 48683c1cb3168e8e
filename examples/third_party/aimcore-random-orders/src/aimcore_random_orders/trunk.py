"""A ViT that is told which patch comes next.

Shape suffixes: B batch, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import attrs
from torch import Tensor, nn
from torch.nn import functional

from aimcore import (
    Capability,
    Features,
    Images,
    Problem,
    Reading,
    Trunk,
    TrunkModule,
    at_least,
    component,
)
from aimcore.contracts import limits
from aimcore.contracts.images import reorder
from aimcore.modeling.attention import mask_of
from aimcore.modeling.layers import TransformerBlock, init_linears
from aimcore.modeling.positions import sincos_positions


@component("told_vit", paper="arXiv:2404.09562, section 2 (double positional encoding)")
class ToldViT(Trunk):
    """A pre-norm ViT whose token at step t knows the position of its own patch and of the patch of step t + 1.

    In an order that differs from sample to sample, nothing else says which patch is to be predicted. Positions are
    fixed sine-cosine vectors, as in the paper. A learned linear map, without bias, turns those of the next patch into
    an instruction, so that the two cannot be mistaken for each other; it is the only addition to a ViT. The last token
    is given none.
    """

    width: int
    depth: int
    num_heads: int
    patch_size: int = 14
    told: bool = True
    """Whether tokens are told the next position. Without it, this is a plain ViT to compare with."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Everything but hiding patches and showing its embeddings."""
        return frozenset[Capability]({"causal", "prefix", "order", "native"})

    def problems(self) -> Iterable[Problem]:
        """Sizes must be positive and fit each other."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("depth", self.depth, 1, limits.DEPTH)
        yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        for divisor in (4, self.num_heads):
            if divisor > 0 and self.width % divisor:
                yield Problem("width", f"must be a multiple of 4 and of num_heads ({self.num_heads}), got {self.width}")
                break

    def build(self) -> ToldViTModule:
        """The module, with fresh weights."""
        return ToldViTModule(self)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny one, and one that is not told."""
        return tuple(cls(width=16, depth=2, num_heads=2, patch_size=4, told=told) for told in (True, False))


class ToldViTModule(TrunkModule):
    """The module of :class:`ToldViT`."""

    def __init__(self, config: ToldViT) -> None:
        super().__init__()
        self.width, self.depth, self.patch_size, self.num_channels = config.width, config.depth, config.patch_size, 3
        self.embed = nn.Linear(config.patch_size**2 * self.num_channels, config.width)
        self.embed_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.instruction = nn.Linear(config.width, config.width, bias=False) if config.told else None
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, 4 * config.width) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        init_linears(self)

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` says."""
        dtype = self.embed.weight.dtype
        patches_BNF = reorder(images.patches_BNF, reading.order_BN).to(dtype)
        positions_BN2, valid_BN = (
            reorder(images.positions_BN2, reading.order_BN),
            reorder(images.valid_BN, reading.order_BN),
        )
        tokens_BND = self.embed_norm(self.embed(patches_BNF)) + sincos_positions(positions_BN2, self.width)
        if self.instruction is not None:
            tokens_BND = tokens_BND + self.instruction(next_positions(positions_BN2, self.width).to(dtype))
        attention = reading.attention
        if images.is_padded:
            attention = attrs.evolve(attention, valid_BN=valid_BN)
        mask = mask_of(attention, tokens_BND.shape[1], tokens_BND.device)
        tokens_BND, outputs = tokens_BND.to(dtype), []
        for block in self.blocks:
            tokens_BND = block(tokens_BND, mask)
            outputs.append(tokens_BND)
        return Features(
            self.norm(tokens_BND), positions_BN2, valid_BN, tuple(outputs[index] for index in reading.layers)
        )


def next_positions(positions_BN2: Tensor, width: int) -> Tensor:
    """``[B, N, D]``: the position of the patch after each one; zeros where none follows.

    >>> next_positions(torch.tensor([[[0, 1], [0, 0], [-1, -1]]]), 4)[0].tolist()  # (0, 0) is next, then padding
    [[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    next_BN2 = functional.pad(positions_BN2[:, 1:], (0, 0, 0, 1), value=-1)
    follows_BN1 = (next_BN2 >= 0).all(-1, keepdim=True)
    return sincos_positions(next_BN2, width) * follows_BN1
