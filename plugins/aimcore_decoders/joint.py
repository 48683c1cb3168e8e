"""AIMv2's joint multimodal decoder: the image and then the caption, in one causal sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from aimcore import Attention, Decoder, DecoderModule, Features, Problem, Text, at_least, component, positive
from aimcore.contracts import limits
from aimcore.contracts.decoders import Decoded, DecodedLosses, DecoderState
from aimcore.contracts.features import KeyValue
from aimcore.modeling.attention import Mask, mask_of
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.layers import TransformerBlock, init_linears, init_output, make_norm, swiglu_width
from aimcore_decoders.text_inputs import TextInputs


@component("joint", paper="arXiv:2411.14402, Figure 1, section 2.2 and Tables 1, 9d-f")
class JointDecoder(Decoder):
    """One causal transformer over image features and caption, with a linear head for each modality.

    Image features, after the encoder's final norm, pass through a linear layer (with bias) to the decoder's width, and
    no positions are added to them. SwiGLU, RMSNorm, no biases in the blocks. The defaults are Table 1's. Initialization
    is that of the authors' training code: the two heads shrink with width and depth (``init_output``), blocks are
    Xavier-uniform, and the linear layer keeps torch's default, bias included.
    """

    width: int = 1024
    depth: int = 12
    num_heads: int = 8
    norm_eps: float = 1e-5

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that the heads do not divide."""
        return size_problems(self.width, self.depth, self.num_heads, self.norm_eps)

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> JointDecoderModule:
        """Build the module."""
        return JointDecoderModule(self, in_width, num_outputs, vocabulary_size, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny instance."""
        return (cls(width=16, depth=2, num_heads=2),)


class JointDecoderModule(DecoderModule):
    """A causal transformer over ``[image tokens, begin vector, text tokens]``."""

    def __init__(
        self, config: JointDecoder, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int
    ) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, config.width)  # keeps torch's default initialization, bias included
        self.text_inputs = TextInputs(vocabulary_size, context_length, config.width) if vocabulary_size else None
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.width,
                config.num_heads,
                swiglu_width(config.width),
                norm="rms_norm",
                ffn="swiglu",
                eps=config.norm_eps,
            )
            for _ in range(config.depth)
        )
        self.norm = make_norm("rms_norm", config.width, config.norm_eps)
        self.to_patches = nn.Linear(config.width, num_outputs, bias=False) if num_outputs else None
        self.to_tokens = nn.Linear(config.width, vocabulary_size, bias=False) if vocabulary_size else None
        init_linears(self.blocks)
        for head in (self.to_patches, self.to_tokens):
            if head is not None:
                init_output(head, config.depth)

    def forward(
        self,
        features: Features,
        attention: Attention,
        text: Text | None,
        image_where_M: Tensor | None,
        text_where_M: Tensor | None,
    ) -> Decoded:
        """Return patch predictions and token logits, each only at the requested positions.

        The image comes first, so no image token sees text. Captions are padded at the end, so no token sees padding.
        """
        image_BND, text_BTD = self._decoded(features, attention, text)
        return Decoded(
            self._at(image_BND, image_where_M, self.to_patches),
            self._at(text_BTD, text_where_M, self.to_tokens),
        )

    def text_losses(
        self,
        features: Features,
        attention: Attention,
        text: Text,
        image_where_M: Tensor | None,
        text_where_M: Tensor,
        loss_of: Callable[[Tensor, slice], Tensor],
    ) -> DecodedLosses:
        """Return patch predictions and the losses of tokens; logits of a large vocabulary are computed in chunks."""
        assert self.to_tokens is not None, "a decoder without text was asked for losses of tokens"
        image_BND, text_BTD = self._decoded(features, attention, text)
        normed_MD = self.norm(text_BTD.flatten(0, 1).index_select(0, text_where_M))  # [B * T, D] -> [M, D]
        loss_M = losses_in_chunks(self.to_tokens, normed_MD, self.to_tokens.out_features, loss_of)
        return DecodedLosses(self._at(image_BND, image_where_M, self.to_patches), loss_M)

    def _decoded(self, features: Features, attention: Attention, text: Text | None) -> tuple[Tensor, Tensor]:
        """Return the outputs of image tokens ``[B, N, D]`` and of text tokens ``[B, T, D]``, before the norm."""
        tokens_BLD = self.project(features.tokens_BND)  # [B, N, D of the trunk] -> [B, N, D], without positions
        num_steps = tokens_BLD.shape[1]
        if text is not None and self.text_inputs is not None:
            # [B, N + T, D]: the image, then the begin vector and the caption without its last token
            tokens_BLD = torch.cat([tokens_BLD, self.text_inputs(text).to(tokens_BLD.dtype)], dim=1)
        mask = mask_of(_causal(attention, tokens_BLD.shape[1]), tokens_BLD.shape[1], tokens_BLD.device)
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, mask)
        return tokens_BLD[:, :num_steps], tokens_BLD[:, num_steps:]

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        """Read the image and the begin vector."""
        image_BND = self.project(features.tokens_BND)
        first_B1D = self._text_inputs.first(len(image_BND)).to(image_BND.dtype)
        tokens_BLD = torch.cat([image_BND, first_B1D], dim=1)  # [B, N + 1, D]
        length = tokens_BLD.shape[1]
        causal = _causal(attention, length)
        seen_BL = tokens_BLD.new_ones(tokens_BLD.shape[:2], dtype=torch.bool)
        if causal.valid_BN is not None:
            seen_BL = causal.valid_BN
        tokens_BLD, past = self._read(tokens_BLD, mask_of(causal, length, tokens_BLD.device), ())
        return self._logits(tokens_BLD[:, -1]), DecoderState(past, seen_BL, 1)

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read one more token of each caption."""
        tokens_B1D = self._text_inputs.next(ids_B.unsqueeze(1), state.num_tokens)
        seen_BL = torch.cat([state.seen_BL, state.seen_BL.new_ones(len(ids_B), 1)], dim=1)
        tokens_B1D, past = self._read(tokens_B1D, Mask(seen_BL[:, None, None, :]), state.past)
        return self._logits(tokens_B1D[:, -1]), DecoderState(past, seen_BL, state.num_tokens + 1)

    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        """Read M more tokens at once: each sees what was read before, itself, and those before it."""
        tokens_BMD = self._text_inputs.next(ids_BM, state.num_tokens)
        batch, number = ids_BM.shape
        # Each new token sees everything that was read before (L columns), and new tokens up to itself (M columns).
        new_MM = torch.ones(number, number, dtype=torch.bool, device=state.seen_BL.device).tril()
        seen_BML = torch.cat([state.seen_BL[:, None].expand(-1, number, -1), new_MM.expand(batch, -1, -1)], dim=2)
        return self._logits(self._read(tokens_BMD, Mask(seen_BML[:, None]), state.past)[0])

    @property
    def _text_inputs(self) -> TextInputs:
        assert self.text_inputs is not None, "a decoder without text was asked to generate"
        return self.text_inputs

    def _read(self, tokens_BMD: Tensor, mask: Mask, past: tuple[KeyValue, ...]) -> tuple[Tensor, tuple[KeyValue, ...]]:
        kept: list[KeyValue] = []
        # Under autocast the image is projected to a lower precision. Text uses the same precision, as in training.
        tokens_BMD = tokens_BMD.to(past[0].key_BHNE.dtype) if past else tokens_BMD
        for index, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            tokens_BMD, of_block = block.extend(tokens_BMD, mask, past[index] if past else None)
            kept.append(of_block)
        return tokens_BMD, tuple(kept)

    def _logits(self, tokens: Tensor) -> Tensor:
        assert self.to_tokens is not None, "a decoder without text was asked to generate"
        logits: Tensor = self.to_tokens(self.norm(tokens))
        return logits

    def _at(self, tokens_BND: Tensor, where_M: Tensor | None, head: nn.Module | None) -> Tensor | None:
        if where_M is None or head is None:
            return None
        # Select before the head: only scored positions pay for K outputs. [B * N, D] -> [M, D] -> [M, K]
        predictions_MK: Tensor = head(self.norm(tokens_BND.flatten(0, 1).index_select(0, where_M)))
        return predictions_MK


def size_problems(width: int, depth: int, num_heads: int, norm_eps: float) -> Iterable[Problem]:
    """Yield problems with a decoder's size, or with the epsilon of its norms."""
    yield from at_least("width", width, 1, limits.WIDTH)
    yield from at_least("depth", depth, 1, limits.DEPTH)
    yield from at_least("num_heads", num_heads, 1, limits.HEADS)
    yield from positive("norm_eps", norm_eps, 1)
    if num_heads > 0 and width % num_heads:
        yield Problem("width", f"must be a multiple of num_heads ({num_heads}), got {width}")


def _causal(attention: Attention, length: int) -> Attention:
    """Return plain causal attention over image and text; no token sees padding of the image."""
    if attention.valid_BN is None:
        return Attention(causal=True)
    batch, num_steps = attention.valid_BN.shape
    text_BT = attention.valid_BN.new_ones(batch, length - num_steps)
    return Attention(causal=True, valid_BN=torch.cat([attention.valid_BN, text_BT], dim=1))
