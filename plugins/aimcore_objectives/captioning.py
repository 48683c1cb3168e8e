"""Captioning alone (Cap): AIMv2 without the image loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from aimcore import (
    Attention,
    Batch,
    Capability,
    Decoder,
    Loss,
    Objective,
    PatchGrid,
    Problem,
    Reading,
    TextTokenizer,
    TrunkModule,
    at_least,
    component,
)
from aimcore.contracts import limits
from aimcore.contracts.objectives import Skill
from aimcore_decoders import CrossAttentionDecoder, JointDecoder
from aimcore_objectives.captioner import CaptionerModule, bidirectional
from aimcore_objectives.steps import nothing_left, steps_of
from aimcore_objectives.texts import num_tokens, scored_tokens, text_loss, text_of, token_losses
from aimcore_orderings import Raster
from aimcore_tokenizers import Bytes


@component("captioning", paper="arXiv:2411.14402, section 3.2, Figure 4 and Table 9a")
class Captioning(Objective):
    """Predict each token of a caption from the image and the tokens before it; there is no image loss.

    Table 9a compares two attentions of the encoder: bidirectional, and prefix-causal with the prefix that the
    multimodal objective draws (one patch in validation). Captions are always written and scored with bidirectional
    attention: a random prefix in training makes that possible "without additional tuning" (section 2.1).
    """

    decoder: Decoder = JointDecoder()
    tokenizer: TextTokenizer = Bytes()
    context_length: int = 77
    attention: Literal["bidirectional", "prefix"] = "bidirectional"

    @property
    def text(self) -> tuple[TextTokenizer, int]:
        """The tokenizer of captions, and the largest number of tokens."""
        return self.tokenizer, self.context_length

    @property
    def requires(self) -> frozenset[Capability]:
        """Prefix attention if ``attention`` is "prefix", else nothing."""
        return frozenset[Capability]({"prefix"}) if self.attention == "prefix" else frozenset()

    @property
    def skills(self) -> frozenset[Skill]:
        """It can write captions."""
        return frozenset[Skill]({"caption"})

    def problems(self) -> Iterable[Problem]:
        """Yield a problem if the context has no room for a token."""
        return at_least("context_length", self.context_length, 1, limits.PATCHES)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if a prefix leaves no patch."""
        return nothing_left(grid, "uniform") if self.attention == "prefix" else ()

    @property
    def validation_prefix(self) -> int | None:
        """One patch with prefix attention; None otherwise."""
        return 1 if self.attention == "prefix" else None

    def build(self, trunk: TrunkModule) -> CaptioningModule:
        """Build the trunk with this objective's decoder."""
        return CaptioningModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return tiny objectives with both attentions and both decoders."""
        return (
            cls(decoder=JointDecoder(width=16, depth=2, num_heads=2), context_length=6),
            cls(decoder=CrossAttentionDecoder(width=16, depth=2, num_heads=2), context_length=6, attention="prefix"),
        )


class CaptioningModule(CaptionerModule):
    """The module of :class:`Captioning`."""

    def __init__(self, config: Captioning, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.decoder = config.decoder.build(trunk.width, 0, config.tokenizer.vocabulary_size, config.context_length)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of tokens that are not padding."""
        return {"text": num_tokens(batch)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss of captions."""
        text, attention = text_of(batch), self._attention(batch)
        features = self.trunk(batch.images, Reading(attention=attention))
        tokens_M, device = scored_tokens(text), features.tokens_BND.device
        losses = token_losses(text, tokens_M, device)
        _, loss_M = self.decoder.text_losses(features, attention, text, None, tokens_M.to(device), losses)
        return {"text": text_loss(text, tokens_M, loss_M)}

    def evaluation_reading(self, batch: Batch) -> Reading:
        """Return a bidirectional reading, for every attention in training."""
        return Reading(attention=bidirectional(batch.images))

    def _attention(self, batch: Batch) -> Attention:
        if self.config.attention == "prefix":
            return steps_of(batch, Raster(), "uniform", training=self.training).attention
        return bidirectional(batch.images)
