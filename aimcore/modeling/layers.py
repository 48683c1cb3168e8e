"""Transformer building blocks that plugins share.

Every module returns a tensor and uses only its own parameters, as ZeRO stage 3 demands (see :mod:`aimcore.contracts`).
Query, key and value are three modules. Shape suffixes: B batch, N tokens, D width, H heads, E values per head.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.features import KeyValue
from aimcore.contracts.frozen import Part, with_frozen_weights
from aimcore.modeling.attention import Mask, attend, attention_probabilities

_TRUNCATED_STD = 0.879626
"""Standard deviation of a standard normal variable truncated to [-2, 2]."""
NormKind = Literal["layer_norm", "rms_norm"]
FFNKind = Literal["gelu", "swiglu"]


def make_norm(kind: NormKind, width: int, eps: float) -> nn.Module:
    """Return a LayerNorm with weight and bias, or an RMSNorm with weight."""
    return nn.LayerNorm(width, eps=eps) if kind == "layer_norm" else RMSNorm(width, eps=eps)


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the type of its weight, like LayerNorm under autocast. Torch has no fused kernel for mixed types."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Any leading shape; the last axis is the width."""
        return super().forward(tokens.to(self.weight.dtype))


def swiglu_width(width: int) -> int:
    """Return the hidden width of AIMv2's SwiGLU: floor(8 * width / 3), rounded up to a multiple of 256.

    >>> swiglu_width(1024)
    2816
    """
    return -(-(8 * width // 3) // 256) * 256


def init_linears(module: nn.Module) -> None:
    """Draw Xavier-uniform weights and set biases to zero in every linear layer.

    Both papers' training code initializes blocks like this, and AIM's head.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def init_output(linear: nn.Linear, depth: int) -> None:
    """Draw the weights of an output layer after ``depth`` blocks, with variance ``1 / (fan_in * (1 + depth))``.

    The bias is not changed.

    The authors' training code draws AIMv2's two output heads like this, from a normal distribution truncated at two of
    its standard deviations (standard deviation 0.00867 at width 1024 after 12 blocks). Outputs of normalised tokens
    then have variance ``1 / (1 + depth)``, and the first image loss is about 1 + 1/13 instead of Xavier's 2.27.
    """
    scale = (linear.in_features * (1 + depth)) ** -0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(linear.weight, std=scale, a=-2 * scale, b=2 * scale)


class SelfAttention(nn.Module):
    """Multi-head self-attention: ``softmax(q k^T / sqrt(E)) v`` per head, then a linear map."""

    def __init__(self, width: int, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, tokens_BND: Tensor, mask: Mask) -> Tensor:
        """``[B, N, D]`` in, ``[B, N, D]`` out."""
        query, key, value = (self._heads(part(tokens_BND)) for part in (self.query, self.key, self.value))
        # [B, H, N, E] -> [B, N, H, E] -> [B, N, D]
        mixed: Tensor = self.out(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return mixed

    def probabilities(self, tokens_BND: Tensor, mask: Mask) -> Tensor:
        """``[B, H, N, N]`` float32: attention of each query (third axis) of ``forward`` to each key."""
        query, key = (self._heads(part(tokens_BND)) for part in (self.query, self.key))
        return attention_probabilities(query, key, mask).float()

    def extend(self, tokens_BMD: Tensor, mask: Mask, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Read M more tokens after those of ``past``; return their outputs, and the keys and values of all tokens.

        ``mask`` has a row per new token and a column per token, old and new.
        """
        query, key, value = (self._heads(part(tokens_BMD)) for part in (self.query, self.key, self.value))
        if past is not None:
            # [B, H, past + M, E]
            key, value = torch.cat([past.key_BHNE, key], dim=2), torch.cat([past.value_BHNE, value], dim=2)
        mixed: Tensor = self.out(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return mixed, KeyValue(key, value)

    def _heads(self, tokens_BND: Tensor) -> Tensor:
        # [B, N, D] -> [B, N, H, E] -> [B, H, N, E]
        return tokens_BND.reshape(*tokens_BND.shape[:2], self.num_heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """A GELU (exact) or SwiGLU feed-forward network; SwiGLU is ``fc2(silu(fc1 x) * fc3 x)``."""

    def __init__(self, width: int, hidden: int, *, kind: FFNKind, bias: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden, bias=bias)
        self.fc3 = nn.Linear(width, hidden, bias=bias) if kind == "swiglu" else None
        self.fc2 = nn.Linear(hidden, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Any leading shape; the last axis is the width."""
        hidden = self.fc1(tokens)  # [..., D] -> [..., hidden]
        gated = functional.gelu(hidden) if self.fc3 is None else functional.silu(hidden) * self.fc3(tokens)
        result: Tensor = self.fc2(gated)  # [..., hidden] -> [..., D]
        return result


class TransformerBlock(nn.Module):
    """A pre-norm block: attention, then feed-forward, each added to its input."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        ffn_width: int,
        *,
        norm: NormKind = "layer_norm",
        ffn: FFNKind = "gelu",
        attention_bias: bool = False,
        ffn_bias: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_1 = make_norm(norm, width, eps)
        self.attention = SelfAttention(width, num_heads, bias=attention_bias)
        self.norm_2 = make_norm(norm, width, eps)
        self.ffn = FeedForward(width, ffn_width, kind=ffn, bias=ffn_bias)

    def forward(self, tokens_BND: Tensor, mask: Mask) -> Tensor:
        """``[B, N, D]`` in, ``[B, N, D]`` out."""
        tokens_BND = tokens_BND + self.attention(self.norm_1(tokens_BND), mask)
        result: Tensor = tokens_BND + self.ffn(self.norm_2(tokens_BND))
        return result

    def extend(self, tokens_BMD: Tensor, mask: Mask, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Read M more tokens; see :meth:`SelfAttention.extend`."""
        mixed_BMD, past = self.attention.extend(self.norm_1(tokens_BMD), mask, past)
        tokens_BMD = tokens_BMD + mixed_BMD
        result: Tensor = tokens_BMD + self.ffn(self.norm_2(tokens_BMD))
        return result, past


class MLPBlock(nn.Module):
    """A pre-norm residual MLP that reads each token alone (arXiv:2401.08541, section 4.2, "MLP prediction heads").

    ``identity_attention`` first adds ``norm_1(x)``: an attention slot that the authors' code leaves as the identity.
    """

    def __init__(self, width: int, hidden: int, *, identity_attention: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=eps) if identity_attention else None
        self.norm_2 = nn.LayerNorm(width, eps=eps)
        self.ffn = FeedForward(width, hidden, kind="gelu", bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Any leading shape; the last axis is the width."""
        if self.norm_1 is not None:
            tokens = tokens + self.norm_1(tokens)
        result: Tensor = tokens + self.ffn(self.norm_2(tokens))
        return result


class LearnedPositions(nn.Module):
    """A learned vector per position of one grid, drawn from N(0, 0.02). It is never sliced for another grid."""

    no_weight_decay = frozenset({"table"})

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(num_positions, width))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Add the positions to tokens in raster order."""
        return tokens_BND + self.table


class MaskToken(nn.Module):
    """A learned token that replaces masked patches, drawn from N(0, 0.02)."""

    no_weight_decay = frozenset({"token"})

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.token, std=0.02)

    def forward(self, tokens_BND: Tensor, masked_BN: Tensor) -> Tensor:
        """Replace the tokens where ``masked_BN`` is True."""
        return torch.where(masked_BN.unsqueeze(-1), self.token.to(tokens_BND.dtype), tokens_BND)


class ExtraTokens(nn.Module):
    """Learned tokens before those of patches, drawn from N(0, 0.02): a class token, registers (arXiv:2309.16588)."""

    no_weight_decay = frozenset({"tokens"})

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(number, width))
        nn.init.normal_(self.tokens, std=0.02)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """``[B, N, D]`` in, ``[B, R + N, D]`` out."""
        extra_BRD = self.tokens.to(tokens_BND.dtype).expand(len(tokens_BND), -1, -1)
        return torch.cat([extra_BRD, tokens_BND], dim=1)


def frozen_copy(module: Part) -> Part:
    """Copy a module and turn its weights into buffers: a teacher that no optimiser trains.

    Buffers are float32, whole on every rank and in checkpoints, at every ZeRO stage and precision; frozen parameters
    are partitioned at stage 3 and rounded to bfloat16 with precision "bf16". Call it in the constructor of an
    objective's module.
    """
    return with_frozen_weights(copy.deepcopy(module))


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move a :func:`frozen_copy` of ``module`` towards the module: ``momentum * average + (1 - momentum) * weights``.

    Call it in :meth:`aimcore.ObjectiveModule.after_step`, where weights are whole and float32. Buffers of integers
    are copied.

    Raises:
        BrokenContract: it is called outside ``after_step`` at ZeRO stage 3, or ``average`` is not a copy of ``module``.
    """
    values = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name, kept in average.named_buffers():
        value = values.get(name)
        if value is None or value.shape != kept.shape:
            raise BrokenContract(
                f"the average has {name} {list(kept.shape)}, and the module "
                f"{'has none' if value is None else list(value.shape)}: move a frozen_copy of the same module, only "
                "in after_step, where weights are whole"
            )
        if kept.is_floating_point():
            kept.lerp_(value.to(kept.dtype), 1 - momentum)
        else:
            kept.copy_(value)
