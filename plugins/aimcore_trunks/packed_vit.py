"""A Vision Transformer that reads images faster on a CPU, without gradients, with a packed copy of its weights.

The outputs are those of :class:`~aimcore_trunks.vit.ViTModule`, up to rounding. The differences, whose effect
``docs/performance.md`` measures:

- weights are stored in the order in which the library of matrix products reads them (packed);
- query, key and value are one product; the activation and the first residual sum are part of products in bfloat16;
- the gains of RMSNorm are folded into the weights that follow, and the rest of RMSNorm is two passes over the tokens;
- a block reads as many images at a time as fit in the caches of the cores, and each thread reads its own.

Shape suffixes: B images, N tokens of an image, M tokens of all images, D width, K inputs of a product, F outputs of a
product, H heads, E values per head.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Features, Images, Reading, TrunkModule
from aimcore.modeling.attention import Mask, attend
from aimcore.modeling.layers import FeedForward, RMSNorm, SelfAttention
from aimcore_trunks.image_threads import ImageThreads

_ROWS_PER_THREAD = 256
"""Tokens per thread and product: their hidden values in bfloat16, 1.4 MB at AIMv2-L, fit in the cache of a core. With
more than 768 tokens for two threads, oneDNN 3.12 computes some products of AIMv2-L with one thread."""
_MKL_ROWS = 256
"""Tokens that MKL packs weights for: those of an image of 224 pixels with patches of 14."""
Activation = Literal["none", "gelu", "swish"]


class _Block(Protocol):
    """The parts of a pre-norm block (:class:`aimcore.modeling.layers.TransformerBlock` has them too)."""

    norm_1: nn.Module
    attention: SelfAttention
    norm_2: nn.Module
    ffn: FeedForward


class InferenceViT(TrunkModule):
    """The forward pass of a :class:`~aimcore_trunks.vit.ViTModule` without gradients, with weights of its own.

    Its weights are a copy of those that the module had when it was made: later changes of the module do not reach it.

    Args:
        vit: a :class:`~aimcore_trunks.vit.ViTModule` that :func:`can_pack` accepts.
        products: the type of matrix products; with float32 weights, bfloat16 gives the results of autocast.
    """

    def __init__(self, vit: TrunkModule, products: torch.dtype) -> None:
        super().__init__()
        self.width, self.depth = vit.width, vit.depth
        self.patch_size, self.num_channels = vit.patch_size, vit.num_channels
        threads = ImageThreads()
        blocks = nn.ModuleList(InferenceBlock(block, products, threads) for block in _blocks(vit))
        others = {name: copy.deepcopy(part) for name, part in vit.named_children() if name != "blocks"}
        self._vit = copy.copy(vit)
        self._vit.__dict__["_modules"] = {**others, "blocks": blocks}  # the copy must not share the module's table

    @torch.no_grad()
    def forward(self, images: Images, reading: Reading) -> Features:
        """Return the features of ``images``, in reading order, without gradients."""
        features: Features = self._vit(images, reading)
        return features

    @torch.no_grad()
    def embed_patches(self, images: Images) -> Tensor:
        """``[B, N, D]`` in raster order: normalised patch embeddings, without positions."""
        return self._vit.embed_patches(images)


class InferenceBlock(nn.Module):
    """A pre-norm block with packed weights."""

    def __init__(self, block: _Block, products: torch.dtype, threads: ImageThreads) -> None:
        super().__init__()
        self._threads = threads
        attention, ffn = block.attention, block.ffn
        self.num_heads = attention.num_heads
        self.norm_1, self.norm_2 = _Norm(block.norm_1, products), _Norm(block.norm_2, products)
        self.qkv = _packed([attention.query, attention.key, attention.value], self.norm_1.gain_D, products)  # [3 D, D]
        self.out = _packed([attention.out], None, products)
        self.fc1 = _packed([ffn.fc1], self.norm_2.gain_D, products)
        self.fc3 = None if ffn.fc3 is None else _packed([ffn.fc3], self.norm_2.gain_D, products)
        self.fc2 = _packed([ffn.fc2], None, products)

    def forward(self, tokens_BND: Tensor, mask: Mask) -> Tensor:
        """``[B, N, D]`` in, ``[B, N, D]`` out."""
        batch, length, _ = tokens_BND.shape
        at_once, threads = max(1, _ROWS_PER_THREAD // max(1, length)), torch.get_num_threads()
        result_BND = torch.empty_like(tokens_BND, memory_format=torch.contiguous_format)

        def read(part: slice) -> None:
            self._read(tokens_BND[part], _of(mask, part), result_BND[part])

        # Images that do not give a part to every thread are read by all threads together.
        alone = 0 if threads == 1 else batch // (at_once * threads) * at_once * threads
        if alone:
            self._threads.each(read, [slice(start, start + at_once) for start in range(0, alone, at_once)])
        together = max(1, self.qkv.rows_at_once() // max(1, length))
        for start in range(alone, batch, together):
            read(slice(start, min(start + together, batch)))
        return result_BND

    def _read(self, tokens_BND: Tensor, mask: Mask, result_BND: Tensor) -> None:
        batch, length, width = tokens_BND.shape
        tokens_MD = tokens_BND.reshape(-1, width)
        qkv_MF = self.qkv(self.norm_1(tokens_MD))
        # [M, 3 D] -> [B, N, 3, H, E] -> 3 x [B, H, N, E], without a copy: attention reads strided values as fast.
        query, key, value = qkv_MF.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        mixed_MD = attend(query, key, value, mask).transpose(1, 2).reshape(-1, width)
        result_MD = result_BND.view(-1, width)
        tokens_MD = self.out.added(mixed_MD, tokens_MD, result_MD)
        normal_MD = self.norm_2(tokens_MD)
        if self.fc3 is None:
            hidden_MF = self.fc1(normal_MD, "gelu")
        else:
            hidden_MF = self.fc3.multiplied(normal_MD, self.fc1(normal_MD, "swish"))
        torch.add(tokens_MD, self.fc2(hidden_MF), out=result_MD)  # often in place: tokens_MD may be result_MD


class _Norm:
    """LayerNorm, or RMSNorm without its gain, of rows ``[M, D]``, in the type of products."""

    def __init__(self, norm: nn.Module, products: torch.dtype) -> None:
        self._products = products
        self._layer_norm: nn.LayerNorm | None = None
        self.gain_D: Tensor | None = None
        """The gain of RMSNorm, which the weights of the next product take in."""
        if isinstance(norm, RMSNorm):
            assert norm.eps is not None
            self.gain_D, self._eps = norm.weight.detach(), norm.eps
        else:
            assert isinstance(norm, nn.LayerNorm)
            self._layer_norm = copy.deepcopy(norm)

    def __call__(self, tokens_MD: Tensor) -> Tensor:
        if self._layer_norm is not None:
            normal_MD: Tensor = self._layer_norm(tokens_MD)
            return normal_MD.to(self._products)
        width = tokens_MD.shape[1]
        mean_square_M = torch.linalg.vector_norm(tokens_MD, dim=-1, dtype=torch.float32).square_().div_(width)
        # torch has no fused RMSNorm for CPUs. Batch normalisation with fixed statistics, of rows as channels, is
        # (x - 0) / sqrt(mean square + eps) in one pass, in float32 inside.
        zero_M = torch.zeros_like(mean_square_M)
        result_1MD, _, _ = torch.native_batch_norm(
            tokens_MD.unsqueeze(0), None, None, zero_M, mean_square_M, False, 0.0, self._eps
        )
        return result_1MD[0].to(self._products)


class _Product(ABC):
    """The product of rows with packed weights."""

    @abstractmethod
    def rows_at_once(self) -> int:
        """Return the number of rows that it multiplies fastest."""

    @abstractmethod
    def multiply(self, rows_MK: Tensor, activation: Activation) -> Tensor:
        """``[M, K]`` in, ``[M, F]`` out."""

    @abstractmethod
    def is_split(self, rows: int) -> bool:
        """Return whether so many rows are multiplied faster in parts."""

    def __call__(self, rows_MK: Tensor, activation: Activation = "none") -> Tensor:
        if not self.is_split(len(rows_MK)):
            return self.multiply(rows_MK, activation)
        parts = rows_MK.chunk(-(-len(rows_MK) // self.rows_at_once()))
        return torch.cat([self.multiply(part_MK, activation) for part_MK in parts])

    def added(self, rows_MK: Tensor, other_MF: Tensor, space_MF: Tensor) -> Tensor:
        """Return the product plus ``other_MF``, in the type of ``other_MF``: in ``space_MF`` or in a new tensor."""
        return torch.add(other_MF, self(rows_MK), out=space_MF)

    def multiplied(self, rows_MK: Tensor, other_MF: Tensor) -> Tensor:
        """Return the product times ``other_MF``, whose memory may be used."""
        return other_MF.mul_(self(rows_MK))


@attrs.frozen(eq=False)
class _OneDNN(_Product):
    """Products in bfloat16; oneDNN accumulates in float32."""

    weight: Tensor
    bias_F: Tensor | None

    def rows_at_once(self) -> int:
        return _ROWS_PER_THREAD * torch.get_num_threads()

    def is_split(self, rows: int) -> bool:
        return rows > self.rows_at_once()

    def multiply(self, rows_MK: Tensor, activation: Activation) -> Tensor:
        form = "none" if activation == "gelu" else ""  # the exact form of GELU
        result_MF: Tensor = torch.ops.mkldnn._linear_pointwise(rows_MK, self.weight, self.bias_F, activation, [], form)
        return result_MF

    def added(self, rows_MK: Tensor, other_MF: Tensor, space_MF: Tensor) -> Tensor:
        if other_MF.dtype != rows_MK.dtype or self.is_split(len(rows_MK)):
            return super().added(rows_MK, other_MF, space_MF)
        return self._combined(rows_MK, other_MF, "add")

    def multiplied(self, rows_MK: Tensor, other_MF: Tensor) -> Tensor:
        if self.is_split(len(rows_MK)):
            return super().multiplied(rows_MK, other_MF)
        return self._combined(rows_MK, other_MF, "mul")

    def _combined(self, rows_MK: Tensor, other_MF: Tensor, operation: Literal["add", "mul"]) -> Tensor:
        result_MF: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            rows_MK, other_MF, self.weight, self.bias_F, operation
        )
        return result_MF


@attrs.frozen(eq=False)
class _MKL(_Product):
    """Products in float32. MKL packs weights for one number of rows; others use weights that are not packed."""

    packed: Tensor
    weight_FK: Tensor
    bias_F: Tensor | None

    def rows_at_once(self) -> int:
        return _MKL_ROWS

    def is_split(self, rows: int) -> bool:
        return rows > _MKL_ROWS and rows % _MKL_ROWS == 0

    def multiply(self, rows_MK: Tensor, activation: Activation) -> Tensor:
        result_MF: Tensor = torch.ops.mkl._mkl_linear(rows_MK, self.packed, self.weight_FK, self.bias_F, _MKL_ROWS)
        if activation == "gelu":
            return functional.gelu(result_MF)
        return functional.silu(result_MF, inplace=True) if activation == "swish" else result_MF


def can_pack(vit: TrunkModule, products: torch.dtype) -> bool:
    """Return whether :class:`InferenceViT` can read in place of ``vit``.

    Its weights must be whole and on a CPU, its layers torch's own, and the libraries of packed products installed.
    """
    dtypes = {parameter.dtype for parameter in vit.parameters()}
    is_on_cpu = all(parameter.device.type == "cpu" for parameter in vit.parameters())
    if not is_on_cpu or len(dtypes) != 1 or not dtypes <= {torch.float32, products}:
        return False
    if products == torch.bfloat16:
        is_installed = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-untyped-call]
    else:
        is_installed = products == torch.float32 and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return bool(is_installed) and all(_is_plain(block) for block in _blocks(vit))


def _blocks(vit: TrunkModule) -> Iterator[Any]:
    return vit.get_submodule("blocks").children()


def _is_plain(block: _Block) -> bool:
    """Return whether all parts are of known types, with whole weights: not adapted, partitioned or watched."""
    attention, ffn = block.attention, block.ffn
    linears = [attention.query, attention.key, attention.value, attention.out, ffn.fc1, ffn.fc2]
    linears += [] if ffn.fc3 is None else [ffn.fc3]
    return (
        (type(attention), type(ffn)) == (SelfAttention, FeedForward)
        and all(type(norm) in (nn.LayerNorm, RMSNorm) for norm in (block.norm_1, block.norm_2))
        and all(type(linear) is nn.Linear and linear.weight.dim() == 2 for linear in linears)
    )


def _packed(linears: list[nn.Linear], gain_K: Tensor | None, products: torch.dtype) -> _Product:
    """Pack the weights of linear maps of the same rows, with the gain of the norm before them folded in."""
    weight_FK = torch.cat([linear.weight.detach() for linear in linears])
    if gain_K is not None:
        weight_FK = weight_FK.float() * gain_K.float()
    weight_FK = weight_FK.to(products)
    biases = [linear.bias for linear in linears]
    bias_F = None if biases[0] is None else torch.cat([bias.detach() for bias in biases]).to(products)
    if products == torch.bfloat16:
        return _OneDNN(torch.ops.mkldnn._reorder_linear_weight(weight_FK), bias_F)
    return _MKL(torch.ops.mkl._mkl_reorder_linear_weight(weight_FK, _MKL_ROWS), weight_FK, bias_F)


def _of(mask: Mask, images: slice) -> Mask:
    """Return the mask of some images of a batch."""
    if mask.allowed is None or len(mask.allowed) == 1:
        return mask
    return Mask(mask.allowed[images], mask.is_causal)
