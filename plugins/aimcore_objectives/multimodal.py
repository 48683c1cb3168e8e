"""AIMv2's objective: the next patch, then the caption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch

from aimcore import (
    Attention,
    Batch,
    Capability,
    Decoder,
    Features,
    Loss,
    Ordering,
    PatchGrid,
    PredictedPatches,
    Problem,
    Reading,
    Target,
    TextTokenizer,
    TrunkModule,
    at_least,
    built_target,
    component,
)
from aimcore.contracts import limits
from aimcore.contracts.images import reorder
from aimcore.contracts.objectives import Skill
from aimcore_decoders import JointDecoder, SeparateDecoder
from aimcore_objectives.captioner import CaptionerModule
from aimcore_objectives.patch_prediction import PatchObjective
from aimcore_objectives.steps import (
    Prefix,
    Steps,
    drawn_patches,
    nothing_left,
    num_scored,
    orders_of,
    patch_loss,
    steps_of,
    validation_prefix,
)
from aimcore_objectives.texts import num_tokens, scored_tokens, text_loss, text_of, token_losses
from aimcore_orderings import Raster
from aimcore_targets import NormalizedPixels
from aimcore_tokenizers import Bytes


@component("multimodal", paper="arXiv:2411.14402, section 2.1 and Figure 1")
class Multimodal(PatchObjective):
    """A decoder predicts the patches after the prefix, then the caption's tokens: text + ``image_weight`` x image.

    The encoder attends with a prefix drawn uniformly in [1, I - 1] per image; the decoder is causal. ``image_weight``
    is the paper's alpha (Table 9c). Two losses are reported, ``text`` and ``image``. Their averages are described at
    :func:`~aimcore_objectives.texts.text_loss` and :func:`~aimcore_objectives.steps.patch_loss`.

    Captions are written and scored after the whole image, in this objective's order. The encoder's attention is then
    bidirectional if the prefix was random in training ("without additional tuning", section 2.1), otherwise that of
    training. The decoder is always causal.
    """

    ordering: Ordering = Raster()
    target: Target = NormalizedPixels()
    decoder: Decoder = JointDecoder()
    tokenizer: TextTokenizer = Bytes()
    context_length: int = 77
    """Largest number of tokens of a caption; longer ones are cut."""
    prefix: Prefix = "uniform"
    """Prefix length of the encoder: uniform in [1, I - 1] per image, a fixed number of patches, or none (causal)."""
    image_weight: float = 0.4

    @property
    def text(self) -> tuple[TextTokenizer, int]:
        """The tokenizer of captions, and the largest number of tokens."""
        return self.tokenizer, self.context_length

    @property
    def requires(self) -> frozenset[Capability]:
        """Causal or prefix-causal attention, and any order of patches."""
        return frozenset[Capability]({"causal" if self.prefix is None else "prefix", "order"})

    @property
    def skills(self) -> frozenset[Skill]:
        """It can write captions."""
        return frozenset[Skill]({"caption"})

    def problems(self) -> Iterable[Problem]:
        """Yield problems of lengths, of the weight, or of a decoder that predicts no patches."""
        yield from at_least("context_length", self.context_length, 1, limits.PATCHES)
        yield from at_least("image_weight", self.image_weight, 0, 1e6)
        if not self.decoder.predicts_patches:
            yield Problem("decoder", f"must predict patches, and {self.decoder.name!r} predicts text only")
        if isinstance(self.prefix, int):
            yield from at_least("prefix", self.prefix, 1)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if no patch is left to predict after the prefix."""
        return nothing_left(grid, self.prefix)

    @property
    def validation_prefix(self) -> int | None:
        """One patch if training draws the prefix, the fixed length, or None without a prefix."""
        return validation_prefix(self.prefix)

    def build(self, trunk: TrunkModule) -> MultimodalModule:
        """Build the trunk with this objective's decoder."""
        return MultimodalModule(self, trunk)

    def probe_reading(self, batch: Batch) -> Reading:
        """Return this objective's order."""
        return Reading(order_BN=orders_of(self.ordering, batch, training=False))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return tiny objectives with joint and separate decoders."""
        return (
            cls(decoder=JointDecoder(width=16, depth=2, num_heads=2), context_length=6),
            cls(decoder=SeparateDecoder(width=16, depth=1, num_heads=2), context_length=6, prefix=None),
        )


class MultimodalModule(CaptionerModule):
    """The module of :class:`Multimodal`."""

    def __init__(self, config: Multimodal, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        num_outputs = config.target.num_outputs(trunk.patch_size, trunk.num_channels)
        self.decoder = config.decoder.build(
            trunk.width, num_outputs, config.tokenizer.vocabulary_size, config.context_length
        )
        self.target = built_target(config.target, trunk.patch_size, trunk.num_channels)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of tokens that are not padding, and of patches after the prefixes."""
        return {"text": num_tokens(batch), "image": num_scored(batch, self.config.prefix, training=self.training)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the losses of captions and patches."""
        config, text = self.config, text_of(batch)
        features, steps = self._read(batch)
        tokens_M, device = scored_tokens(text), steps.target_M.device
        losses = token_losses(text, tokens_M, device)
        patches_MK, loss_M = self.decoder.text_losses(
            features, steps.attention, text, steps.target_M - 1, tokens_M.to(device), losses
        )
        assert patches_MK is not None, "the decoder predicts patches, or the objective would be refused"
        return {
            "text": text_loss(text, tokens_M, loss_M),
            "image": patch_loss(self.target, batch, steps, patches_MK, weight=config.image_weight),
        }

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Predict each patch after the prefix from the true patches before it; return them in raster order.

        No patch sees the caption, so the batch may have none.
        """
        features, steps = self._read(batch)
        patches_MK, _ = self.decoder(features, steps.attention, batch.text, steps.target_M - 1, None)
        return drawn_patches(self.target, batch, steps, patches_MK)

    def _read(self, batch: Batch) -> tuple[Features, Steps]:
        """Features in reading order; the decoder's output at step t - 1 predicts the patch of step t."""
        steps = steps_of(batch, self.config.ordering, self.config.prefix, training=self.training)
        return self.trunk(batch.images, Reading(attention=steps.attention, order_BN=steps.order_BN)), steps

    def evaluation_reading(self, batch: Batch) -> Reading:
        """Return this objective's order, with bidirectional attention unless training has a fixed prefix or none."""
        images, prefix = batch.images, self.config.prefix
        order_BN = orders_of(self.config.ordering, batch, training=False)
        lengths_B = torch.full((len(images.grids),), prefix) if isinstance(prefix, int) else None
        attention = Attention(
            causal=prefix != "uniform",
            prefix_length_B=lengths_B,
            valid_BN=reorder(images.valid_BN, order_BN) if images.is_padded else None,
        )
        return Reading(attention=attention, order_BN=order_BN)
