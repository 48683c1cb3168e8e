"""Objectives with state that moves as they train, sound and broken."""

from __future__ import annotations

import torch
from core.testing.mutants.masking import MaskingModule
from core.testing.mutants.masking import Sound as Masking
from torch import Tensor

from aimcore import Batch, Images, ObjectiveModule, Reading, TrunkModule, component
from aimcore.layers import frozen_copy, move_average


@component("sound")
class Sound(Masking):
    """Masked tokens of an average of the trunk, which moves after each update."""

    momentum: float = 0.9

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return TaughtModule(self, trunk)


class TaughtModule(MaskingModule):
    def __init__(self, config: Sound, trunk: TrunkModule) -> None:
        super().__init__(trunk)
        self.momentum = config.momentum
        self.teacher = frozen_copy(trunk)

    def num_outputs(self, trunk: TrunkModule) -> int:
        return trunk.width

    def values(self, batch: Batch) -> Tensor:
        tokens_BND: Tensor = self.teacher(batch.images, Reading()).tokens_BND
        return tokens_BND.detach()

    def places(self, images: Images) -> Tensor | None:
        length = images.patches_BNF.shape[1]
        return torch.arange(length).expand(len(images.grids), length)

    def after_step(self, step: int, num_steps: int) -> None:
        move_average(self.teacher, self.trunk, self.momentum)


SOUND = (Sound(),)
MUTANTS = ()
