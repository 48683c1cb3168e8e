"""Two dedicated decoders: one for the image, one for the caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self

from torch import Tensor

from aimcore import Attention, Decoder, DecoderModule, Features, Problem, Text, component
from aimcore.contracts.decoders import Decoded, DecodedLosses, DecoderState
from aimcore_decoders.joint import JointDecoder, size_problems


@component("separate", paper="arXiv:2411.14402, Table 9d")
class SeparateDecoder(Decoder):
    """A decoder of patches that reads only image features, and a decoder of text that reads image features and caption.

    The paper says no more than "two dedicated decoders". Here each one is a joint decoder of the given size that
    predicts one modality.
    """

    width: int = 1024
    depth: int = 12
    num_heads: int = 8
    norm_eps: float = 1e-5

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that the heads do not divide."""
        return size_problems(self.width, self.depth, self.num_heads, self.norm_eps)

    def build(
        self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int
    ) -> SeparateDecoderModule:
        """Build the module."""
        return SeparateDecoderModule(self, in_width, num_outputs, vocabulary_size, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny instance."""
        return (cls(width=16, depth=2, num_heads=2),)


class SeparateDecoderModule(DecoderModule):
    """Two joint decoders; each predicts one modality."""

    def __init__(
        self, config: SeparateDecoder, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int
    ) -> None:
        super().__init__()
        one = JointDecoder(width=config.width, depth=config.depth, num_heads=config.num_heads, norm_eps=config.norm_eps)
        self.image = one.build(in_width, num_outputs, 0, 0) if num_outputs else None
        self.text = one.build(in_width, 0, vocabulary_size, context_length)

    def forward(
        self,
        features: Features,
        attention: Attention,
        text: Text | None,
        image_where_M: Tensor | None,
        text_where_M: Tensor | None,
    ) -> Decoded:
        """Return patch predictions and token logits, each from its own decoder."""
        patches_MK = logits_MV = None
        if image_where_M is not None and self.image is not None:
            patches_MK = self.image(features, attention, None, image_where_M, None).patches_MK
        if text is not None and text_where_M is not None:
            logits_MV = self.text(features, attention, text, None, text_where_M).logits_MV
        return Decoded(patches_MK, logits_MV)

    def text_losses(
        self,
        features: Features,
        attention: Attention,
        text: Text,
        image_where_M: Tensor | None,
        text_where_M: Tensor,
        loss_of: Callable[[Tensor, slice], Tensor],
    ) -> DecodedLosses:
        """Return patch predictions and the losses of tokens, each from its own decoder."""
        patches_MK = self(features, attention, None, image_where_M, None).patches_MK
        losses = self.text.text_losses(features, attention, text, None, text_where_M, loss_of)
        return losses._replace(patches_MK=patches_MK)

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        """Generate with the text decoder."""
        return self.text.start(features, attention)

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Generate with the text decoder."""
        return self.text.step(ids_B, state)

    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        """Generate with the text decoder."""
        return self.text.follow(ids_BM, state)
