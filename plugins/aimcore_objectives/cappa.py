"""CapPa: captioning that predicts all tokens of most examples in parallel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import attrs
import torch

from aimcore import (
    Batch,
    Decoder,
    Loss,
    Objective,
    Problem,
    Reading,
    Text,
    TextTokenizer,
    TrunkModule,
    at_least,
    component,
    within,
)
from aimcore.contracts import limits
from aimcore.contracts.objectives import Skill
from aimcore.contracts.randomness import keyed_uniform
from aimcore_decoders import CrossAttentionDecoder
from aimcore_objectives.captioner import CaptionerModule, bidirectional
from aimcore_objectives.texts import num_tokens, scored_tokens, text_loss, text_of, token_losses
from aimcore_tokenizers import Bytes


@component("cappa", paper="arXiv:2306.07915; arXiv:2411.14402, Table 9b")
class CapPa(Objective):
    """Captioning with a cross-attention decoder, which predicts a fraction of the examples in parallel.

    For these examples every input of the decoder is the mask token and its attention is bidirectional, so that all
    tokens are predicted from the image alone. The decoder reads the whole context, so that the length of the caption
    does not leak. The examples are drawn by sample number. In validation, and when captions are written or scored,
    tokens are predicted one after another.
    """

    decoder: Decoder = CrossAttentionDecoder()
    tokenizer: TextTokenizer = Bytes()
    context_length: int = 77
    parallel_share: float = 0.75

    @property
    def text(self) -> tuple[TextTokenizer, int]:
        """The tokenizer of captions, and the largest number of tokens."""
        return self.tokenizer, self.context_length

    @property
    def skills(self) -> frozenset[Skill]:
        """It can write captions."""
        return frozenset[Skill]({"caption"})

    @property
    def any_grid(self) -> bool:
        """True: the decoder attends to tokens of any grid."""
        return True

    def problems(self) -> Iterable[Problem]:
        """Yield a problem of the context length, the share, or a decoder without mask token."""
        yield from at_least("context_length", self.context_length, 1, limits.PATCHES)
        yield from within("parallel_share", self.parallel_share, 0, 1)
        if not isinstance(self.decoder, CrossAttentionDecoder):
            yield Problem("decoder", f"must be cross_attention, which has a mask token, got {self.decoder.name!r}")

    def build(self, trunk: TrunkModule) -> CapPaModule:
        """Build the trunk with this objective's decoder."""
        return CapPaModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return a tiny objective."""
        decoder = CrossAttentionDecoder(width=16, depth=2, num_heads=2)
        return (cls(decoder=decoder, context_length=6, parallel_share=0.5),)


class CapPaModule(CaptionerModule):
    """The module of :class:`CapPa`."""

    def __init__(self, config: CapPa, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.decoder = config.decoder.build(trunk.width, 0, config.tokenizer.vocabulary_size, config.context_length)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of tokens that are not padding."""
        return {"text": num_tokens(batch)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss of captions, predicted in parallel or token by token."""
        text = self._inputs(batch)
        attention = bidirectional(batch.images)
        features = self.trunk(batch.images, Reading(attention=attention))
        tokens_M, device = scored_tokens(text), features.tokens_BND.device
        losses = token_losses(text, tokens_M, device)
        _, loss_M = self.decoder.text_losses(features, attention, text, None, tokens_M.to(device), losses)
        return {"text": text_loss(text, tokens_M, loss_M)}

    def evaluation_reading(self, batch: Batch) -> Reading:
        """Return a bidirectional reading, as in training."""
        return Reading(attention=bidirectional(batch.images))

    def _inputs(self, batch: Batch) -> Text:
        text = text_of(batch)
        if not self.training:
            return text
        drawn_B = keyed_uniform(batch.seed, "parallel", batch.sample_numbers_B.numpy())
        parallel_B1 = torch.from_numpy(drawn_B < self.config.parallel_share)[:, None]
        length = text.ids_BT.shape[1]
        return attrs.evolve(
            text,
            masked_BT=parallel_B1.expand(-1, length),
            prefix_length_B=torch.where(parallel_B1.squeeze(1), length, 0),
        )
