"""Objectives that read text, each broken in one way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from core.testing.mutants.tokenizers import Bytes
from torch import Tensor, nn
from torch.nn import functional

from aimcore import (
    Batch,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    Reading,
    Text,
    TextTokenizer,
    TrunkModule,
    component,
)
from aimcore.contracts.decoders import CaptionStart, DecoderState
from aimcore.contracts.objectives import Skill
from aimcore.testing.checks import objectives as checks


class CaptionModule(ObjectiveModule):
    """Predicts each token from the mean of the image and the mean of the tokens before it."""

    def __init__(self, trunk: TrunkModule, vocabulary_size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.embed = nn.Embedding(vocabulary_size, trunk.width)
        self.out = nn.Linear(trunk.width, vocabulary_size)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        assert batch.text is not None
        return {"caption": int(batch.text.valid_BT.sum())}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        text = batch.text
        assert text is not None
        # Text is always on the CPU; a module moves what it uses.
        device = batch.images.patches_BNF.device
        ids_BT, valid_BT = text.ids_BT.to(device), text.valid_BT.to(device)
        read_BTD = self.read_text(self.embed(ids_BT)) + self.read_image(batch)[:, None]
        loss_BT = functional.cross_entropy(self.out(read_BTD).transpose(1, 2), ids_BT, reduction="none")
        per_position_BT = torch.where(valid_BT, loss_BT, torch.nan)
        return {"caption": Loss(per_position_BT.nansum(), valid_BT.sum(), per_position_BN=per_position_BT)}

    def read_image(self, batch: Batch) -> Tensor:
        return self.trunk(batch.images, Reading()).tokens_BND.mean(1)  # type: ignore[no-any-return]

    def read_text(self, tokens_BTD: Tensor) -> Tensor:
        return tokens_BTD.cumsum(1) - tokens_BTD


@component("sound_captions")
class Sound(Objective):
    """Captions, token by token."""

    @property
    def text(self) -> tuple[TextTokenizer, int]:
        return Bytes(), 6

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return CaptionModule(trunk, Bytes().vocabulary_size)


class BidirectionalModule(CaptionModule):
    def read_text(self, tokens_BTD: Tensor) -> Tensor:
        return tokens_BTD.sum(1, keepdim=True) - tokens_BTD


@component("mutant")
class Bidirectional(Sound):
    """Predicts each token of a caption from all others."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return BidirectionalModule(trunk, Bytes().vocabulary_size)


class BlindModule(CaptionModule):
    def read_image(self, batch: Batch) -> Tensor:
        tokens_BND = self.trunk(batch.images, Reading()).tokens_BND
        return (tokens_BND - tokens_BND.detach()).mean(1)  # type: ignore[no-any-return]


@component("mutant")
class Blind(Sound):
    """Writes captions without looking at the image, though a gradient reaches the trunk."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return BlindModule(trunk, Bytes().vocabulary_size)


class SpeakingModule(CaptionModule):
    def embed_images(self, images: Images) -> Tensor:
        return functional.normalize(self.trunk(images, Reading()).tokens_BND.mean(1), dim=-1)

    def embed_texts(self, text: Text) -> Tensor:
        return functional.normalize(self.embed(text.ids_BT).mean(1), dim=-1)

    def caption_start(self, batch: Batch) -> CaptionStart:
        read_BD = self.trunk(batch.images, Reading()).tokens_BND.mean(1)
        seen_BL = torch.ones(len(read_BD), 1, dtype=torch.bool)
        return CaptionStart(self.out(read_BD), DecoderState((), seen_BL, 1, read_BD[:, None]))

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        assert state.context_BND is not None
        read_BD = state.context_BND[:, 0] + self.embed(ids_B)
        return self.out(read_BD), state._replace(context_BND=read_BD[:, None])


@component("sound_speaker")
class Speaking(Sound):
    """Embeds and captions."""

    @property
    def skills(self) -> frozenset[Skill]:
        return frozenset({"embed", "caption"})

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return SpeakingModule(trunk, Bytes().vocabulary_size)


@component("mutant")
class Boastful(Sound):
    """Says that it captions, and does not."""

    @property
    def skills(self) -> frozenset[Skill]:
        return frozenset({"caption"})


class LongModule(SpeakingModule):
    def embed_texts(self, text: Text) -> Tensor:
        return 2 * super().embed_texts(text)


@component("mutant")
class Long(Speaking):
    """Embeds texts as vectors of length 2."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return LongModule(trunk, Bytes().vocabulary_size)


@component("mutant")
class Listing(Speaking):
    """Says what it can by a tuple, which has no differences with sets."""

    @property
    def skills(self) -> frozenset[Skill]:
        return ("embed", "caption")  # type: ignore[return-value]


class ForgetfulModule(SpeakingModule):
    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        forgotten = start.state._replace(num_tokens=1)
        known_B = super().caption_log_likelihoods(start._replace(state=forgotten), text)
        return known_B + start.state.num_tokens - 1

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        logits_BV, state = super().next_token(ids_B, state)
        return logits_BV, state._replace(num_tokens=state.num_tokens + 1)


@component("mutant")
class Forgetful(Speaking):
    """Judges captions otherwise if they go on from a prompt."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return ForgetfulModule(trunk, Bytes().vocabulary_size)


class MeanModule(SpeakingModule):
    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        return super().caption_log_likelihoods(start, text) / text.valid_BT.sum(1)


@component("mutant")
class Mean(Speaking):
    """Gives the mean log-probability of a caption's tokens in place of their sum."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return MeanModule(trunk, Bytes().vocabulary_size)


SOUND = (Sound(), Speaking())
MUTANTS = (
    (checks.check_nothing_scored_reads_its_own_answer, Bidirectional()),
    (checks.check_nothing_scored_reads_its_own_answer, Blind()),
    (checks.check_it_has_its_skills, Boastful()),
    (checks.check_it_has_its_skills, Listing()),
    (checks.check_it_has_its_skills, Long()),
    (checks.check_it_has_its_skills, Mean()),
    (checks.check_it_has_its_skills, Forgetful()),
)
