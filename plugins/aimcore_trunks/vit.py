"""The Vision Transformer of both papers, from top to bottom: configuration, forward pass, block, embeddings.

|                 | AIM (arXiv:2401.08541)              | AIMv2 (arXiv:2411.14402)                        |
|-----------------|-------------------------------------|-------------------------------------------------|
| patch embedding | linear with bias, then the norm     | the same                                        |
| positions       | fixed sine-cosine of row and column | learned; fixed ones at native resolution        |
| block           | x + attention(norm(x)), then x + ffn(norm(x)); no biases in attention and ffn         ||
| norm            | LayerNorm with bias, eps 1e-6       | RMSNorm, eps 1e-5                               |
| ffn             | fc2(gelu(fc1 x)), hidden width 4 D  | fc2(silu(fc1 x) * fc3 x), hidden width 8/3 D    |
| attention       | causal with a random prefix in training, bidirectional in evaluation; heads of 128 values  ||
| output          | tokens after a final norm; no class token, no pooling (``num_extra`` adds tokens)          ||

The named sizes are in ``sizes.py``, the layout of released weights in ``released.py``. Attention and the feed-forward
network are shared with heads and decoders: :mod:`aimcore.modeling.layers`.

Shape suffixes: B images, N patches, R extra tokens, F values of a patch (patch_size * patch_size * channels), D width,
H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from aimcore import (
    Attention,
    Capability,
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
from aimcore.encoders.recognition import UnknownWeights, layout_of
from aimcore.modeling.attention import Mask, mask_of, with_leading_tokens
from aimcore.modeling.layers import (
    ExtraTokens,
    FeedForward,
    FFNKind,
    LearnedPositions,
    MaskToken,
    NormKind,
    SelfAttention,
    init_linears,
    make_norm,
    swiglu_width,
)
from aimcore.modeling.positions import sincos_positions
from aimcore_trunks.interpolation import interpolate_positions, resize_positions
from aimcore_trunks.normalization import normalization_advice
from aimcore_trunks.packed_vit import InferenceViT, can_pack
from aimcore_trunks.released import from_released

_MAX_CACHED_TABLES = 64


@component("vit", paper="arXiv:2401.08541, section 4.2 and Table 1; arXiv:2411.14402, section 2.2 and Table 1")
class ViT(Trunk):
    """A pre-norm Vision Transformer, by default without a class token; the defaults are AIM's form as released.

    AIMv2's form has ``norm="rms_norm"``, ``norm_eps=1e-5``, ``ffn="swiglu"`` and ``positions="learned"`` (at native
    resolution "sincos"); :func:`aimcore_trunks.aimv2` sets them.

    Departure from the paper: AIM's paper drops all biases; the released encoders keep those of the patch embedding and
    of LayerNorm, and so does this trunk.
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
    """Whether a batch of images of another grid gets positions that are interpolated from the table, as in AIMv2's
    test of the 224 px encoder at 448 px (arXiv:2411.14402, Table 6). Without it such images are an error."""
    mask_token: bool = False
    """Whether there is a learned token that replaces masked patches (masked image modelling)."""
    num_extra: int = 0
    """Number of learned tokens before those of patches: a class token, then registers (arXiv:2309.16588). The papers
    have none. A probe reads the class token with ``pool="class"``. In causal attention these tokens see the prefix and
    each other, and no other patch: probe them bidirectionally."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All capabilities, except: "mask" requires the mask token, and "native" requires sine-cosine positions."""
        mask: frozenset[Capability] = frozenset({"mask"}) if self.mask_token else frozenset()
        native: frozenset[Capability] = frozenset({"native"}) if self.positions == "sincos" else frozenset()
        return frozenset[Capability]({"causal", "prefix", "order", "subset", "embeddings"}) | mask | native

    @property
    def hidden_width(self) -> int:
        """Width inside the feed-forward networks."""
        return self.ffn_width or (4 * self.width if self.ffn == "gelu" else swiglu_width(self.width))

    def problems(self) -> Iterable[Problem]:
        """Yield shapes that do not divide, and learned positions without a grid."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("depth", self.depth, 1, limits.DEPTH)
        yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_channels", self.num_channels, 1, limits.CHANNELS)
        yield from positive("norm_eps", self.norm_eps, 1)
        yield from at_least("num_extra", self.num_extra, 0, limits.PATCHES)
        if self.ffn_width is not None:
            yield from at_least("ffn_width", self.ffn_width, 1, limits.RATIO * limits.WIDTH)
        for axis, side in enumerate(self.grid or ()):
            yield from at_least(f"grid.{axis}", side, 1, limits.IMAGE_SIDE)
        if self.num_heads > 0 and self.width % self.num_heads:
            yield Problem("width", f"must be a multiple of num_heads ({self.num_heads}), got {self.width}")
        if self.positions == "sincos" and self.width % 4:
            yield Problem("width", f"sine-cosine positions need a multiple of 4, got {self.width}")
        if (self.positions == "learned") != (self.grid is not None):
            yield Problem(
                "grid", f"is required by positions='learned' and by nothing else; got {self.grid}, {self.positions!r}"
            )
        if self.interpolate and self.positions != "learned":
            yield Problem("interpolate", f"requires positions='learned', got {self.positions!r}, which fit every grid")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if learned positions are for another grid: they are interpolated on request, never sliced."""
        if self.grid is not None and self.grid != (grid.rows, grid.columns) and not self.interpolate:
            yield (
                f"its learned positions are for {self.grid[0]} x {self.grid[1]} patches, the images have "
                f"{grid.rows} x {grid.columns}: set trunk.grid to that, trunk.interpolate to interpolate them, or "
                "use positions='sincos'"
            )

    def build(self) -> ViTModule:
        """Build the module with fresh weights."""
        return ViTModule(self)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the weights of an encoder in any installed layout of files; parts other than the trunk are dropped.

        Raises:
            UnknownLayout: the state is in no known layout; see :func:`aimcore_trunks.from_released`.
        """
        try:
            read = layout_of(state, "the file").read(state)
        except UnknownWeights:
            return from_released(state)
        return {name.removeprefix("trunk."): value for name, value in read.items() if name.startswith("trunk.")}

    def weights_advice(
        self, state: Mapping[str, Tensor], pixels: Preprocessing, read_sibling: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Yield a warning if pixels may not be normalised as a released AIMv2 encoder expects."""
        return normalization_advice(state, pixels, read_sibling)

    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Adapt the weights of a ViT for another grid: interpolate its learned positions, or drop them for fixed ones.

        This is how AIMv2's encoder is adapted to 336 or 448 px, or to native resolution (arXiv:2411.14402, section
        2.4). A table of as many positions as this trunk has is kept as it is; any other must be of a square grid.

        Raises:
            NotResizable: the state has no learned positions, or their grid is not square.
        """
        return resize_positions(state, None if self.grid is None else PatchGrid(*self.grid))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Tiny instances of AIM's form and of AIMv2's."""
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
                num_extra=2,
            ),
        )


class ViTModule(TrunkModule):
    """The forward pass of :class:`ViT`: patches are embedded, put in reading order, and read by the blocks."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.width, self.depth, self.num_extra = config.width, config.depth, config.num_extra
        self.patch_size, self.num_channels = config.patch_size, config.num_channels
        self.patch_embedding = PatchEmbedding(config.patch_size**2 * config.num_channels, config.width)  # F -> D
        self.patch_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.mask_token = MaskToken(config.width) if config.mask_token else None
        self.extra_tokens = ExtraTokens(config.num_extra, config.width) if config.num_extra else None
        self.positions: GridPositions | SincosPositions
        if config.grid is None:
            self.positions = SincosPositions(config.width)
        else:
            self.positions = GridPositions(PatchGrid(*config.grid), config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = make_norm(config.norm, config.width, config.norm_eps)
        self._problems_with = config.problems_with
        init_linears(self.blocks)  # Xavier uniform, as in both papers' training code

    def forward(self, images: Images, reading: Reading) -> Features:
        """Return the features of ``images``, in reading order. Only patches in ``reading.order_BN`` have tokens.

        Raises:
            ValueError: learned positions do not fit the images' grid, or patches are masked without a mask token.
        """
        tokens_BND = self._embed(images, reading.masked_BN)  # from [B, N, F], in raster order
        # Positions are added before this line, so a token keeps the position of its patch in every reading order.
        # In reading order from here on. A shorter order leaves patches out: N is the number that is read.
        tokens_BND = reorder(tokens_BND, reading.order_BN)
        valid_BN = reorder(images.valid_BN, reading.order_BN)
        mask = self._mask(images, reading, valid_BN)  # [B or 1, 1, R + N, R + N], or None if every query sees every key
        if self.extra_tokens is not None:
            # Before the patches, so that patches also see them in causal attention: registers need readers.
            tokens_BND = self.extra_tokens(tokens_BND)  # [B, N, D] -> [B, R + N, D]
        outputs = {}
        for index, block in enumerate(self.blocks):
            tokens_BND = block(tokens_BND, mask)
            if index in reading.layers:
                # Raw, without the final norm: AIM's probes average six of these.
                outputs[index] = tokens_BND[:, self.num_extra :]
        layers = tuple(outputs[index] for index in reading.layers)
        positions_BN2 = reorder(images.positions_BN2, reading.order_BN)
        tokens_BND = self.norm(tokens_BND)
        extra_BRD = tokens_BND[:, : self.num_extra] if self.num_extra else None
        return Features(tokens_BND[:, self.num_extra :], positions_BN2, valid_BN, layers, extra_BRD)

    def embed_patches(self, images: Images) -> Tensor:
        """``[B, N, D]`` in raster order: normalised patch embeddings, without positions."""
        embedded_BND = self.patch_embedding(images.patches_BNF)  # [B, N, F] -> [B, N, D]
        tokens_BND: Tensor = self.patch_norm(embedded_BND)
        return tokens_BND

    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        """``[B, H, N, N]``: attention of the last block in reading order, recomputed from the input of that block.

        With extra tokens, this is the attention of patches to patches, scaled so that rows add up to 1.
        """
        block = self.blocks[-1]
        assert isinstance(block, Block)
        inputs: list[tuple[Tensor, Mask]] = []
        handle = block.attention.register_forward_pre_hook(lambda _, given: inputs.append(given))
        try:
            self(images, reading)
        finally:
            handle.remove()
        maps_BHNN = block.attention.probabilities(*inputs[0])[..., self.num_extra :, self.num_extra :]
        return maps_BHNN / maps_BHNN.sum(-1, keepdim=True) if self.num_extra else maps_BHNN

    def for_inference(self, products: torch.dtype | None = None) -> TrunkModule:
        """Return a module with packed weights, where CPUs have them (:mod:`aimcore_trunks.packed_vit`); else itself."""
        products = products or self.patch_embedding.linear.weight.dtype
        return InferenceViT(self, products) if can_pack(self, products) else self

    def layer_of(self, name: str) -> int:
        """Block i is layer i + 1, the final norm is the last; embeddings, positions and other tokens are layer 0."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        return self.depth + 1 if part == "norm" else 0

    def _embed(self, images: Images, masked_BN: Tensor | None) -> Tensor:
        for problem in (text for grid in sorted(set(images.grids)) for text in self._problems_with(grid)):
            raise ValueError(f"ViT: {problem}")
        tokens_BND: Tensor = self.embed_patches(images)
        if masked_BN is not None:
            if self.mask_token is None:
                raise ValueError("ViT: patches are masked, but the trunk has no mask token: set mask_token=True")
            # Before positions are added: the trunk sees where a masked patch is, but not what it holds.
            tokens_BND = self.mask_token(tokens_BND, masked_BN)
        tokens_BND = self.positions(tokens_BND, images)
        # The sum with float32 positions is float32. Under autocast this keeps the residual stream in float32, as it
        # should be; with bfloat16 weights, tokens go back to bfloat16.
        return tokens_BND.to(self.patch_embedding.linear.weight.dtype)

    def _mask(self, images: Images, reading: Reading, valid_BN: Tensor) -> Mask:
        asked_BN = reading.attention.valid_BN
        if images.is_padded:
            asked_BN = valid_BN if asked_BN is None else valid_BN & asked_BN
        attention = Attention(
            causal=reading.attention.causal, prefix_length_B=reading.attention.prefix_length_B, valid_BN=asked_BN
        )
        num_tokens = self.num_extra + valid_BN.shape[1]
        return mask_of(with_leading_tokens(attention, self.num_extra), num_tokens, images.patches_BNF.device)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a feed-forward network, each added to its input."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        self.norm_1 = make_norm(config.norm, config.width, config.norm_eps)
        # Query, key, value and output: [D, D] each.
        self.attention = SelfAttention(config.width, config.num_heads, bias=config.attention_bias)
        self.norm_2 = make_norm(config.norm, config.width, config.norm_eps)
        # AIM: fc2(gelu(fc1 x)). AIMv2: fc2(silu(fc1 x) * fc3 x). fc1 and fc3: [hidden, D], fc2: [D, hidden].
        self.ffn = FeedForward(config.width, config.hidden_width, kind=config.ffn, bias=config.ffn_bias)

    def forward(self, tokens_BND: Tensor, mask: Mask) -> Tensor:
        """``[B, N, D]`` in, ``[B, N, D]`` out."""
        tokens_BND = tokens_BND + self.attention(self.norm_1(tokens_BND), mask)
        result: Tensor = tokens_BND + self.ffn(self.norm_2(tokens_BND))
        return result


class PatchEmbedding(nn.Module):
    """A linear map of the values of each patch, equal to a convolution whose kernel and stride are one patch.

    Initialization is that of both papers' training code: the weight is Xavier uniform; the bias keeps torch's default
    for a convolution, uniform within 1 / sqrt(F) (0.041 for F = 588).
    """

    def __init__(self, num_values: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_values, width)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` in, ``[B, N, D]`` out, in the type of the weights."""
        tokens: Tensor = self.linear(patches_BNF.to(self.linear.weight.dtype))
        return tokens


class SincosPositions(nn.Module):
    """Adds a fixed sine-cosine vector of each patch's (row, column). Tables are cached per grid and not saved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._tables: dict[tuple[PatchGrid, int, bool, torch.device], Tensor] = {}

    def forward(self, tokens_BND: Tensor, images: Images) -> Tensor:
        """Tokens in raster order, ``[B, N, D]``; the sum is float32."""
        if not images.is_uniform:
            return tokens_BND + sincos_positions(images.positions_BN2, self.width)
        key = (images.grid, tokens_BND.shape[1], images.padding_is_image, tokens_BND.device)
        if key not in self._tables:
            # At native resolution almost every image has a new grid: bound the memory.
            if len(self._tables) >= _MAX_CACHED_TABLES:
                self._tables.clear()
            self._tables[key] = sincos_positions(images.positions_BN2[:1], self.width)  # [1, N, D]
        return tokens_BND + self._tables[key]


class GridPositions(LearnedPositions):
    """A learned vector per position of one grid, ``table`` ``[N, D]``; interpolated for images of another grid."""

    def __init__(self, grid: PatchGrid, width: int) -> None:
        super().__init__(grid.num_patches, width)
        self.grid = grid

    def forward(self, tokens_BND: Tensor, images: Images | None = None) -> Tensor:
        """Add the positions to tokens in raster order. All images have one grid, by default that of the table."""
        if images is None or images.grid == self.grid:
            return super().forward(tokens_BND)
        return tokens_BND + interpolate_positions(self.table, self.grid, images.grid)
