"""Objectives with state that moves as they train, sound and broken."""

from __future__ import annotations

import torch
from core.testing.mutants.masking import MaskingModule
from core.testing.mutants.masking import Sound as Masking
from torch import Tensor

from aimcore import Batch, Images, Loss, ObjectiveModule, Reading, TrunkModule, component
from aimcore.modeling.layers import frozen_copy, move_average
from aimcore.testing.checks import states as checks


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

    def scored_patches(self, images: Images) -> Tensor | None:
        length = images.patches_BNF.shape[1]
        return torch.arange(length).expand(len(images.grids), length)

    def after_step(self, step: int, num_steps: int) -> None:
        move_average(self.teacher, self.trunk, self.momentum)


class ForgetfulModule(MaskingModule):
    updates = 0

    def after_step(self, step: int, num_steps: int) -> None:
        self.updates += 1


@component("mutant")
class Forgetful(Masking):
    """Counts its updates in a plain attribute."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return ForgetfulModule(trunk)


class ImpatientModule(TaughtModule):
    def __init__(self, config: Sound, trunk: TrunkModule) -> None:
        super().__init__(config, trunk)
        self.register_buffer("forwards", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> dict[str, Loss]:
        if self.training:
            self.forwards += 1
        return super().forward(batch)


@component("mutant")
class Impatient(Sound):
    """Counts forwards for updates, of which accumulation makes several for one."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return ImpatientModule(self, trunk)


class LateModule(TaughtModule):
    due = False

    def forward(self, batch: Batch) -> dict[str, Loss]:
        losses = super().forward(batch)
        if self.due:
            weights = dict(self.trunk.named_parameters())
            for name, average in self.teacher.named_buffers():
                if average.shape == weights[name].shape:
                    average.lerp_(weights[name].detach().to(average.dtype), 1 - self.momentum)
            self.due = False
        return losses

    def after_step(self, step: int, num_steps: int) -> None:
        self.due = True


@component("mutant")
class Late(Sound):
    """Moves its teacher in the first forward after an update, where stage 3 has no whole weights."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return LateModule(self, trunk)


class LocalModule(TaughtModule):
    def __init__(self, config: Sound, trunk: TrunkModule) -> None:
        super().__init__(config, trunk)
        self.register_buffer("centre", torch.zeros(trunk.width))
        self.seen: list[Tensor] = []

    def values(self, batch: Batch) -> Tensor:
        values_BNK = super().values(batch)
        if self.training:
            self.seen.append(values_BNK.mean((0, 1)))
        return values_BNK

    def after_step(self, step: int, num_steps: int) -> None:
        super().after_step(step, num_steps)
        if self.seen:
            self.centre.lerp_(torch.stack(self.seen).mean(0).to(self.centre.dtype), 0.5)
        self.seen.clear()


@component("mutant")
class Local(Sound):
    """Averages over the images of its own process alone."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return LocalModule(self, trunk)


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_its_state_is_in_checkpoints, Forgetful()),
    (checks.check_its_state_moves_once_per_update, Impatient()),
    (checks.check_its_state_moves_once_per_update, Late()),
    (checks.check_its_state_is_the_same_on_every_process, Local()),
)
