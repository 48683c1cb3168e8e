"""Objectives that read text, each broken in one way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from core.testing.mutants.tokenizers import Bytes
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Batch, Loss, Objective, ObjectiveModule, Reading, TextTokenizer, TrunkModule, component
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


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_nothing_scored_reads_its_own_answer, Bidirectional()),
    (checks.check_nothing_scored_reads_its_own_answer, Blind()),
)
