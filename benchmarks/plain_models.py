"""AIM's and AIMv2's objectives as anyone would write them: the straightforward form that the benchmarks compare with.

One dense mask goes through PyTorch's fused attention, every patch through the head, every token through the output
layers; query, key and value are one linear layer. The modules know nothing of this project's: ``of`` copies the weights
of an objective module into them.

Shape suffixes: B images, N patches, T text tokens, L all tokens, F values of a patch, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Batch, ObjectiveModule
from aimcore.modeling.positions import sincos_positions
from aimcore_decoders.joint import JointDecoderModule
from aimcore_heads.mlp import MLPHeadModule
from aimcore_objectives.multimodal import MultimodalModule
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_objectives.steps import first_targets
from aimcore_trunks.vit import ViTModule

State = Mapping[str, Tensor]


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused function, with one linear layer for query, key and value."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, tokens_BLD: Tensor, mask_B1LL: Tensor) -> Tensor:
        """``[B, L, D]`` in, ``[B, L, D]`` out."""
        batch, length, width = tokens_BLD.shape
        heads = self.qkv(tokens_BLD).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed_BHLE = functional.scaled_dot_product_attention(*heads.unbind(0), attn_mask=mask_B1LL)
        out: Tensor = self.proj(mixed_BHLE.transpose(1, 2).reshape(batch, length, width))
        return out


class Block(nn.Module):
    """A pre-norm block; SwiGLU with RMSNorm (AIMv2), or GELU with LayerNorm (AIM). No attention in an MLP head."""

    def __init__(self, width: int, num_heads: int, hidden: int, eps: float, *, swiglu: bool) -> None:
        super().__init__()
        norm = nn.RMSNorm if swiglu else nn.LayerNorm
        self.norm_1, self.attention = (norm(width, eps=eps), Attention(width, num_heads)) if num_heads else (None, None)
        self.norm_2 = norm(width, eps=eps)
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.fc3 = nn.Linear(width, hidden, bias=False) if swiglu else None
        self.fc2 = nn.Linear(hidden, width, bias=False)

    def forward(self, tokens: Tensor, mask_B1LL: Tensor | None = None) -> Tensor:
        """Any leading shape without attention; ``[B, L, D]`` with it."""
        if self.attention is not None and self.norm_1 is not None:
            tokens = tokens + self.attention(self.norm_1(tokens), mask_B1LL)
        normed = self.norm_2(tokens)
        hidden = self.fc1(normed)
        gated = functional.gelu(hidden) if self.fc3 is None else functional.silu(hidden) * self.fc3(normed)
        result: Tensor = tokens + self.fc2(gated)
        return result

    def copy(self, state: State) -> None:
        """Take the weights of a block of this project, whose names ``state`` has."""
        own = {name: value for name, value in state.items() if name.startswith("norm_")}
        own |= {name.removeprefix("ffn."): value for name, value in state.items() if name.startswith("ffn.")}
        if self.attention is not None:
            parts = [state[f"attention.{part}.weight"] for part in ("query", "key", "value")]
            own |= {"attention.qkv.weight": torch.cat(parts), "attention.proj.weight": state["attention.out.weight"]}
        self.load_state_dict(own)


class Trunk(nn.Module):
    """Patch embedding, positions, blocks, norm."""

    def __init__(self, trunk: ViTModule) -> None:
        super().__init__()
        self.embed = nn.Linear(trunk.patch_embedding.linear.in_features, trunk.width)
        first = trunk.blocks[0]
        swiglu, hidden = first.ffn.fc3 is not None, first.ffn.fc1.out_features
        norm = nn.RMSNorm if swiglu else nn.LayerNorm
        self.embed_norm, self.norm = (norm(trunk.width, eps=trunk.norm.eps) for _ in range(2))
        self.table = nn.Parameter(trunk.positions.table.detach().clone()) if hasattr(trunk.positions, "table") else None
        sizes = (trunk.width, first.attention.num_heads, hidden, trunk.norm.eps)
        self.blocks = nn.ModuleList(Block(*sizes, swiglu=swiglu) for _ in trunk.blocks)
        copied(self.embed, trunk.patch_embedding.linear)
        copied(self.embed_norm, trunk.patch_norm)
        copied(self.norm, trunk.norm)
        for mine, other in zip(self.blocks, trunk.blocks, strict=True):
            mine.copy(other.state_dict())

    def forward(self, batch: Batch, mask_B1LL: Tensor) -> Tensor:
        """``[B, N, D]``, after the final norm."""
        images = batch.images
        tokens_BND = self.embed_norm(self.embed(images.patches_BNF))
        width = tokens_BND.shape[-1]
        positions = sincos_positions(images.positions_BN2, width) if self.table is None else self.table
        tokens_BND = tokens_BND + positions
        for block in self.blocks:
            tokens_BND = block(tokens_BND, mask_B1LL)
        tokens: Tensor = self.norm(tokens_BND)
        return tokens


class PlainNextPatch(nn.Module):
    """AIM: the trunk, an MLP head on every patch, the mean loss of the patches after the prefix."""

    def __init__(self, trunk: ViTModule, head: MLPHeadModule) -> None:
        super().__init__()
        self.trunk = Trunk(trunk)
        self.project = nn.Linear(trunk.width, head.project.out_features, bias=False)
        self.norm = nn.LayerNorm(head.project.out_features, eps=head.norm.eps)
        self.out = nn.Linear(head.out.in_features, head.out.out_features, bias=False)
        width, hidden = head.project.out_features, head.blocks[0].ffn.fc1.out_features
        self.blocks = nn.ModuleList(Block(width, 0, hidden, head.norm.eps, swiglu=False) for _ in head.blocks)
        for part in ("project", "norm", "out"):
            copied(getattr(self, part), getattr(head, part))
        for mine, other in zip(self.blocks, head.blocks, strict=True):
            mine.copy(other.state_dict())

    @classmethod
    def of(cls, module: NextPatchModule) -> Self:
        """Return the same model with the same weights."""
        return cls(module.trunk, module.head)

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss."""
        prefix_B, mask_B1NN = masks(batch)
        tokens_BND = self.trunk(batch, mask_B1NN)
        tokens_BND = tokens_BND + sincos_positions(batch.images.positions_BN2, tokens_BND.shape[-1])
        tokens_BND = self.project(tokens_BND)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return patch_loss(batch, self.out(self.norm(tokens_BND)), prefix_B)


class PlainMultimodal(nn.Module):
    """AIMv2: the trunk, one causal decoder over image and caption, both losses."""

    def __init__(self, trunk: ViTModule, decoder: JointDecoderModule, image_weight: float) -> None:
        super().__init__()
        self.trunk, self.image_weight = Trunk(trunk), image_weight
        assert decoder.text_inputs is not None
        inputs, first = decoder.text_inputs, decoder.blocks[0]
        self.embedding = nn.Embedding(*inputs.embedding.weight.shape, _weight=inputs.embedding.weight.detach().clone())
        self.begin, self.positions = (nn.Parameter(one.detach().clone()) for one in (inputs.begin, inputs.positions))
        width, hidden = decoder.project.out_features, first.ffn.fc1.out_features
        sizes = (width, first.attention.num_heads, hidden, decoder.norm.eps)
        self.blocks = nn.ModuleList(Block(*sizes, swiglu=True) for _ in decoder.blocks)
        self.project = nn.Linear(trunk.width, width)
        self.norm = nn.RMSNorm(width, eps=decoder.norm.eps)
        self.to_patches, self.to_tokens = (
            nn.Linear(width, one.out_features, bias=False) for one in (decoder.to_patches, decoder.to_tokens)
        )
        for part in ("project", "norm", "to_patches", "to_tokens"):
            copied(getattr(self, part), getattr(decoder, part))
        for mine, other in zip(self.blocks, decoder.blocks, strict=True):
            mine.copy(other.state_dict())

    @classmethod
    def of(cls, module: MultimodalModule) -> Self:
        """Return the same model with the same weights."""
        return cls(module.trunk, module.decoder, module.config.image_weight)

    def forward(self, batch: Batch) -> Tensor:
        """The weighted sum of the two mean losses."""
        assert batch.text is not None
        prefix_B, mask_B1NN = masks(batch)
        image_BND = self.project(self.trunk(batch, mask_B1NN))
        ids_BT, length = batch.text.ids_BT, batch.text.ids_BT.shape[1]
        begin_B1D = self.begin.expand(len(ids_BT), 1, -1)
        text_BTD = torch.cat([begin_B1D, self.embedding(ids_BT[:, :-1])], dim=1) + self.positions[:length]
        tokens_BLD = torch.cat([image_BND, text_BTD], dim=1)
        causal_LL = torch.ones(tokens_BLD.shape[1], tokens_BLD.shape[1], dtype=torch.bool).tril()
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, causal_LL)
        tokens_BLD = self.norm(tokens_BLD)
        patches_BNF = self.to_patches(tokens_BLD[:, : image_BND.shape[1]])
        logits_BTV = self.to_tokens(tokens_BLD[:, image_BND.shape[1] :])
        targets_BT = ids_BT.masked_fill(~batch.text.valid_BT, -100)
        text_loss = functional.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        return text_loss + self.image_weight * patch_loss(batch, patches_BNF, prefix_B)


def plain_of(module: ObjectiveModule) -> PlainNextPatch | PlainMultimodal:
    """Return the plain form of a module of ``next_patch`` or ``multimodal``, with a copy of its weights.

    Raises:
        TypeError: there is no plain form of it.
    """
    if isinstance(module, NextPatchModule):
        return PlainNextPatch.of(module)
    if isinstance(module, MultimodalModule):
        return PlainMultimodal.of(module)
    raise TypeError(f"there is no plain form of {type(module).__name__}: known are NextPatch and Multimodal")


def masks(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the prefix lengths ``[B]`` of the step, and the dense mask ``[B, 1, N, N]``."""
    prefix_B = torch.from_numpy(first_targets(batch, "uniform", training=True))
    steps_N = torch.arange(batch.images.patches_BNF.shape[1])
    causal_NN = steps_N <= steps_N[:, None]
    return prefix_B, (causal_NN | (steps_N < prefix_B[:, None, None]))[:, None]


def patch_loss(batch: Batch, predictions_BNF: Tensor, prefix_B: Tensor) -> Tensor:
    """Return the mean squared error of normalised patches, each predicted one step before, after the prefixes."""
    patches_BNF = batch.images.patches_BNF
    variance, mean = torch.var_mean(patches_BNF, dim=-1, keepdim=True)
    targets_BNF = (patches_BNF - mean) / (variance + 1e-6).sqrt()
    loss_BN = (predictions_BNF[:, :-1].float() - targets_BNF[:, 1:]).square().mean(-1)
    scored_BN = torch.arange(1, patches_BNF.shape[1]) >= prefix_B[:, None]
    return (loss_BN * scored_BN).sum() / scored_BN.sum()


def copied(mine: nn.Module, other: nn.Module) -> None:
    """Copy the weights of a layer of the same form."""
    mine.load_state_dict(other.state_dict())
