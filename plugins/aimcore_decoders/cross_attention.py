"""A text decoder that reads the image through cross-attention, as in CapPa."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from aimcore import Attention, Decoder, DecoderModule, Features, Problem, Text, component
from aimcore.contracts.decoders import Decoded, DecodedLosses, DecoderState
from aimcore.contracts.features import KeyValue
from aimcore.modeling.attention import Mask, attend, mask_of
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.layers import FeedForward, SelfAttention, init_linears, init_output, make_norm, swiglu_width
from aimcore_decoders.joint import size_problems
from aimcore_decoders.text_inputs import TextInputs


@component("cross_attention", paper="arXiv:2306.07915; arXiv:2411.14402, Table 9b")
class CrossAttentionDecoder(Decoder):
    """Self-attention over the caption, cross-attention to the image, and a feed-forward network; for text only.

    Blocks have SwiGLU and RMSNorm without biases, because arXiv:2411.14402 compares objectives on one architecture;
    initialization is that of the joint decoder for the same reason.
    Attention over the caption is causal with the prefix of ``text.prefix_length_B``. CapPa's parallel prediction
    sets this prefix to the whole context and masks every input.
    """

    width: int = 1024
    depth: int = 12
    num_heads: int = 8
    norm_eps: float = 1e-5

    @property
    def predicts_patches(self) -> bool:
        """Return False: it predicts text only."""
        return False

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that the heads do not divide."""
        return size_problems(self.width, self.depth, self.num_heads, self.norm_eps)

    def build(
        self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int
    ) -> CrossAttentionDecoderModule:
        """Build the module, which predicts no patches."""
        return CrossAttentionDecoderModule(self, in_width, vocabulary_size, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny instance."""
        return (cls(width=16, depth=2, num_heads=2),)


class CrossAttention(nn.Module):
    """Attention with queries from text, and keys and values from image tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, text_BTD: Tensor, image: KeyValue, mask: Mask) -> Tensor:
        """``[B, T, D]``; ``image`` is the result of :meth:`look`, and the mask has a column per image token."""
        query = self._heads(self.query(text_BTD))  # [B, H, T, E]; image has keys and values [B, H, N, E]
        mixed: Tensor = self.out(attend(query, *image, mask).transpose(1, 2).flatten(2))
        return mixed

    def look(self, image_BND: Tensor) -> KeyValue:
        """Return the keys and values of an image, which are shared by all tokens of its captions."""
        return KeyValue(self._heads(self.key(image_BND)), self._heads(self.value(image_BND)))

    def _heads(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND.reshape(*tokens_BND.shape[:2], self.num_heads, -1).transpose(1, 2)


class CrossAttentionBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward network, pre-norm, each added to its input."""

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.norm_1 = make_norm("rms_norm", width, eps)
        self.attention = SelfAttention(width, num_heads, bias=False)
        self.norm_cross = make_norm("rms_norm", width, eps)
        self.cross = CrossAttention(width, num_heads)
        self.norm_2 = make_norm("rms_norm", width, eps)
        self.ffn = FeedForward(width, swiglu_width(width), kind="swiglu", bias=False)

    def forward(
        self, text_BMD: Tensor, mask: Mask, image: KeyValue, image_mask: Mask, past: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Read M text tokens after those of ``past``; return their outputs, and the keys and values of all text."""
        mixed_BMD, kept = self.attention.extend(self.norm_1(text_BMD), mask, past)
        text_BMD = text_BMD + mixed_BMD
        text_BMD = text_BMD + self.cross(self.norm_cross(text_BMD), image, image_mask)
        result: Tensor = text_BMD + self.ffn(self.norm_2(text_BMD))
        return result, kept


class CrossAttentionDecoderModule(DecoderModule):
    """One causal transformer over the caption, with cross-attention to the image in every block."""

    def __init__(self, config: CrossAttentionDecoder, in_width: int, vocabulary_size: int, context_length: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, config.width)
        self.text_inputs = TextInputs(vocabulary_size, context_length, config.width, with_mask=True)
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(config.width, config.num_heads, config.norm_eps) for _ in range(config.depth)
        )
        self.norm = make_norm("rms_norm", config.width, config.norm_eps)
        self.to_tokens = nn.Linear(config.width, vocabulary_size, bias=False)
        init_linears(self.blocks)
        init_output(self.to_tokens, config.depth)

    def forward(
        self,
        features: Features,
        attention: Attention,
        text: Text | None,
        image_where_M: Tensor | None,
        text_where_M: Tensor | None,
    ) -> Decoded:
        """Return token logits at the requested positions.

        Raises:
            ValueError: patches are requested, or there is no text.
        """
        if image_where_M is not None or text is None or text_where_M is None:
            raise ValueError("a cross-attention decoder predicts text only: use a joint or separate one for patches")
        normed_MD = self._decoded(features, attention, text, text_where_M)
        return Decoded(None, self.to_tokens(normed_MD))  # [M, V]

    def text_losses(
        self,
        features: Features,
        attention: Attention,
        text: Text,
        image_where_M: Tensor | None,
        text_where_M: Tensor,
        loss_of: Callable[[Tensor, slice], Tensor],
    ) -> DecodedLosses:
        """Return the losses of tokens; logits of a large vocabulary are computed in chunks."""
        normed_MD = self._decoded(features, attention, text, text_where_M)
        return DecodedLosses(None, losses_in_chunks(self.to_tokens, normed_MD, self.to_tokens.out_features, loss_of))

    def _decoded(self, features: Features, attention: Attention, text: Text, text_where_M: Tensor) -> Tensor:
        """Return the normalised outputs ``[M, D]`` of the requested tokens."""
        image_BND = self.project(features.tokens_BND)  # [B, N, D of the trunk] -> [B, N, D]
        tokens_BTD = self.text_inputs(text).to(image_BND.dtype)
        causal = Attention(causal=True, prefix_length_B=text.prefix_length_B)
        mask = mask_of(causal, tokens_BTD.shape[1], tokens_BTD.device)
        for block, image in zip(self.blocks, self._look(image_BND), strict=True):
            tokens_BTD, _ = block(tokens_BTD, mask, image, _image_mask(attention.valid_BN))
        normed_MD: Tensor = self.norm(tokens_BTD.flatten(0, 1).index_select(0, text_where_M))  # [B * T, D] -> [M, D]
        return normed_MD

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        """Read the image and the begin vector."""
        image_BND = self.project(features.tokens_BND)
        seen_BN = features.valid_BN if attention.valid_BN is None else attention.valid_BN
        first_B1D = self.text_inputs.first(len(image_BND)).to(image_BND.dtype)
        return self._next(first_B1D, DecoderState((), seen_BN, 0, looked_at=self._look(image_BND)))

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one more token of each caption."""
        return self._next(self.text_inputs.next(ids_B.unsqueeze(1), state.num_tokens), state)

    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        """Read M more tokens at once: each sees the text read before, itself, and those before it."""
        length = state.num_tokens + ids_BM.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=state.seen_BL.device).tril()
        mask = Mask(allowed[None, None, state.num_tokens :])  # [1, 1, M, past + M]: rows of the new tokens
        tokens_BMD, _ = self._read(self.text_inputs.next(ids_BM, state.num_tokens), mask, state)
        return self._logits(tokens_BMD)

    def _next(self, tokens_B1D: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        tokens_B1D, past = self._read(tokens_B1D, Mask(), state)
        return self._logits(tokens_B1D[:, -1]), state._replace(past=past, num_tokens=state.num_tokens + 1)

    def _read(self, tokens_BMD: Tensor, mask: Mask, state: DecoderState) -> tuple[Tensor, tuple[KeyValue, ...]]:
        kept: list[KeyValue] = []
        # Under autocast the image is projected to a lower precision. Text uses the same precision, as in training.
        tokens_BMD = tokens_BMD.to(state.looked_at[0].key_BHNE.dtype)
        for index, block in enumerate(self.blocks):
            before = state.past[index] if state.past else None
            tokens_BMD, of_block = block(tokens_BMD, mask, state.looked_at[index], _image_mask(state.seen_BL), before)
            kept.append(of_block)
        return tokens_BMD, tuple(kept)

    def _look(self, image_BND: Tensor) -> tuple[KeyValue, ...]:
        return tuple(block.cross.look(image_BND) for block in self.blocks)  # type: ignore[union-attr, operator]

    def _logits(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.to_tokens(self.norm(tokens))
        return logits


def _image_mask(valid_BN: Tensor | None) -> Mask:
    return Mask(None if valid_BN is None else valid_BN[:, None, None, :])  # [B, 1, 1, N]: no query sees padding
