"""The Vision Transformer of AIM and AIMv2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Self

from torch import Tensor, nn

from aimcore import (
    Ability,
    Attention,
    Features,
    Images,
    PatchGrid,
    Problem,
    Reading,
    Trunk,
    TrunkModule,
    at_least,
    positive,
)
from aimcore.contracts import limits
from aimcore.contracts.component import component
from aimcore.contracts.images import Preprocessing, reorder
from aimcore.modeling.attention import Mask, mask_of
from aimcore.modeling.layers import (
    FFNKind,
    MaskToken,
    NormKind,
    TransformerBlock,
    init_linears,
    make_norm,
    swiglu_width,
)
from aimcore_trunks.normalization import normalization_advice
from aimcore_trunks.positions import GridPositions, SincosPositions, with_positions_for
from aimcore_trunks.released import from_released


@component("vit", paper="arXiv:2401.08541, section 4.2 and Table 1; arXiv:2411.14402, section 2.2 and Table 1")
class ViT(Trunk):
    """A pre-norm Vision Transformer without class token; the defaults are AIM's form as released.

    Patches are embedded linearly (with bias) and normalised, positions added, then blocks and a final norm. Attention
    and feed-forward have no biases by default: the paper drops them, and the released encoders keep biases in the
    patch embedding and in LayerNorm. AIMv2's form has ``norm="rms_norm"``, ``ffn="swiglu"``, ``norm_eps=1e-5`` and,
    but for native resolution, ``positions="learned"``; :func:`aimcore_trunks.aimv2` sets them.
    """

    width: int
    depth: int
    num_heads: int
    patch_size: int = 14
    num_channels: int = 3
    norm: NormKind = "layer_norm"
    norm_eps: float = 1e-6
    ffn: FFNKind = "gelu"
    ffn_width: int | None = None
    """Hidden width; by default 4 x width for GELU, 8/3 x width rounded up to a multiple of 256 for SwiGLU."""
    attention_bias: bool = False
    ffn_bias: bool = False
    positions: Literal["sincos", "learned"] = "sincos"
    """Fixed 2-D sine-cosine, for any grid; or a learned table for ``grid``."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the learned positions."""
    interpolate: bool = False
    """Whether images of another grid, all of the same one, get learned positions interpolated from the table, as where
    AIMv2's encoder for 224 px is tested at 448 px (arXiv:2411.14402, Table 6); otherwise they are refused."""
    mask_token: bool = False
    """Whether it has a token for hidden patches (masked image modelling)."""

    @property
    def can(self) -> frozenset[Ability]:
        """Everything, but hiding needs the mask token and mixed grids need sine-cosine positions."""
        hide: frozenset[Ability] = frozenset({"hide"}) if self.mask_token else frozenset()
        native: frozenset[Ability] = frozenset({"native"}) if self.positions == "sincos" else frozenset()
        return frozenset[Ability]({"causal", "prefix", "order", "embeddings"}) | hide | native

    @property
    def hidden_width(self) -> int:
        """Hidden width of the feed-forward networks."""
        return self.ffn_width or (4 * self.width if self.ffn == "gelu" else swiglu_width(self.width))

    def problems(self) -> Iterable[Problem]:
        """Shapes must divide, and learned positions need their grid."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("depth", self.depth, 1, limits.DEPTH)
        yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_channels", self.num_channels, 1, limits.CHANNELS)
        yield from positive("norm_eps", self.norm_eps, 1)
        if self.ffn_width is not None:
            yield from at_least("ffn_width", self.ffn_width, 1, limits.RATIO * limits.WIDTH)
        for place, side in enumerate(self.grid or ()):
            yield from at_least(f"grid.{place}", side, 1, limits.IMAGE_SIDE)
        if self.num_heads > 0 and self.width % self.num_heads:
            yield Problem("width", f"must be a multiple of num_heads ({self.num_heads}), got {self.width}")
        if self.positions == "sincos" and self.width % 4:
            yield Problem("width", f"sine-cosine positions need a multiple of 4, got {self.width}")
        if (self.positions == "learned") != (self.grid is not None):
            yield Problem(
                "grid", f"goes with positions='learned' and only with it; got {self.grid}, {self.positions!r}"
            )
        if self.interpolate and self.positions != "learned":
            yield Problem("interpolate", f"is for positions='learned', got {self.positions!r}, which fit every grid")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Learned positions fit one grid; they are never sliced, and interpolated only where that is wanted."""
        if self.grid is not None and self.grid != (grid.rows, grid.columns) and not self.interpolate:
            yield (
                f"its learned positions are for {self.grid[0]} x {self.grid[1]} patches, the images have "
                f"{grid.rows} x {grid.columns}: set trunk.grid to that, trunk.interpolate to interpolate them, or "
                "use positions='sincos'"
            )

    def build(self) -> ViTModule:
        """The module, with fresh weights."""
        return ViTModule(self)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a released encoder, as :func:`aimcore_trunks.from_released` reads them."""
        return from_released(state)

    def weights_advice(
        self, state: Mapping[str, Tensor], pixels: Preprocessing, beside: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Which of two published normalisations AIMv2's released weights expect (``normalization.py``)."""
        return normalization_advice(state, pixels, beside)

    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a ViT of another grid: learned positions interpolated for this one's, or left out for fixed ones.

        A table of as many positions as this trunk has is taken as it is, another one for that of a square. This is how
        AIMv2's encoder becomes one for 336 or 448 px, or for native resolution (arXiv:2411.14402, section 2.4).

        Raises:
            NotResizable: there is no table, or not one of a square.
        """
        return with_positions_for(None if self.grid is None else PatchGrid(*self.grid), state)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """AIM's form and AIMv2's, tiny."""
        return (
            cls(width=16, depth=2, num_heads=2, patch_size=4),
            cls(
                width=16,
                depth=2,
                num_heads=2,
                patch_size=4,
                norm="rms_norm",
                norm_eps=1e-5,
                ffn="swiglu",
                ffn_width=40,
                mask_token=True,
            ),
        )


class PatchEmbedding(nn.Module):
    """A linear map of each patch's values: the same as a convolution with kernel and stride of one patch.

    As in both papers' training code, the weight begins Xavier-uniform and the bias as torch begins that of a
    convolution: uniform within 1 / sqrt(number of values), 0.041 for 588.
    """

    def __init__(self, num_values: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_values, width)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` in, ``[B, N, D]`` out, in the type of the weights."""
        tokens: Tensor = self.linear(patches_BNF.to(self.linear.weight.dtype))
        return tokens


class ViTModule(TrunkModule):
    """The module of :class:`ViT`."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depth
        self.patch_size, self.num_channels = config.patch_size, config.num_channels
        self.patch_embedding = PatchEmbedding(config.patch_size**2 * config.num_channels, config.width)
        self.patch_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.mask_token = MaskToken(config.width) if config.mask_token else None
        self.positions = _positions(config)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = make_norm(config.norm, config.width, config.norm_eps)
        self._problems_with = config.problems_with
        init_linears(self.blocks)

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read images as ``reading`` says.

        Raises:
            ValueError: learned positions do not fit the images' grid, or patches are hidden without a mask token.
        """
        tokens_BND = reorder(self._embed(images, reading.hidden_BN), reading.order_BN)
        valid_BN = reorder(images.valid_BN, reading.order_BN)
        attention = Attention(
            causal=reading.attention.causal,
            prefix_length_B=reading.attention.prefix_length_B,
            valid_BN=valid_BN if images.is_padded else reading.attention.valid_BN,
        )
        mask = mask_of(attention, tokens_BND.shape[1], tokens_BND.device)
        kept = {}
        for index, block in enumerate(self.blocks):
            tokens_BND = block(tokens_BND, mask)
            if index in reading.layers:
                kept[index] = tokens_BND
        layers = tuple(kept[index] for index in reading.layers)
        places_BN2 = reorder(images.places_BN2, reading.order_BN)
        return Features(self.norm(tokens_BND), places_BN2, valid_BN, layers)

    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        """``[B, H, N, N]``: what the last block attends to, in reading order, recomputed from the input it gets."""
        block = self.blocks[-1]
        assert isinstance(block, TransformerBlock)
        inputs: list[tuple[Tensor, Mask]] = []
        handle = block.attention.register_forward_pre_hook(lambda _, given: inputs.append(given))
        try:
            self(images, reading)
        finally:
            handle.remove()
        return block.attention.probabilities(*inputs[0])

    def embed_patches(self, images: Images) -> Tensor:
        """``[B, N, D]`` in raster order: normalised patch embeddings, without positions."""
        tokens_BND: Tensor = self.patch_norm(self.patch_embedding(images.patches_BNF))
        return tokens_BND

    def _embed(self, images: Images, hidden_BN: Tensor | None) -> Tensor:
        for problem in (text for grid in sorted(set(images.grids)) for text in self._problems_with(grid)):
            raise ValueError(f"ViT: {problem}")
        tokens_BND: Tensor = self.embed_patches(images)
        if hidden_BN is not None:
            if self.mask_token is None:
                raise ValueError("ViT: patches are hidden, but the trunk has no mask token: set mask_token=True")
            tokens_BND = self.mask_token(tokens_BND, hidden_BN)
        tokens_BND = self.positions(tokens_BND, images)
        # float32 positions lift bfloat16 tokens: wanted under autocast (a float32 residual stream), not in bfloat16.
        return tokens_BND.to(self.patch_embedding.linear.weight.dtype)


def _positions(config: ViT) -> GridPositions | SincosPositions:
    if config.grid is None:
        return SincosPositions(config.width)
    return GridPositions(PatchGrid(*config.grid), config.width)


def _block(config: ViT) -> TransformerBlock:
    return TransformerBlock(
        config.width,
        config.num_heads,
        config.hidden_width,
        norm=config.norm,
        ffn=config.ffn,
        attention_bias=config.attention_bias,
        ffn_bias=config.ffn_bias,
        eps=config.norm_eps,
    )
