"""Optimizers, each broken in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from aimcore import component
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.testing.checks import optimizers as checks


def as_dicts(groups: Sequence[ParameterGroup], weight_decay: float = 0.1) -> list[dict[str, Any]]:
    return [
        {"params": list(group.parameters), "weight_decay": weight_decay if group.decays else 0.0} for group in groups
    ]


@component("sound")
class Sound(Optimizer):
    """SGD with momentum."""

    elementwise: ClassVar[bool] = True

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return torch.optim.SGD(as_dicts(groups), lr=self.peak_lr, momentum=0.9)


class NormalizedSGD(torch.optim.Optimizer):
    """Each parameter moves by its rate, whatever the length of its gradient."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad / (parameter.grad.norm() + 1e-12)


@component("sound_by_norms")
class SoundByNorms(Optimizer):
    """Normalised SGD, which says that it is not elementwise."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return NormalizedSGD(as_dicts(groups))


@component("mutant")
class Mixing(Sound):
    """Puts all parameters into one group."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter for group in groups for parameter in group.parameters], lr=self.peak_lr)


@component("mutant")
class Forgetful(Sound):
    """Leaves the last group out."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return super().build(groups[:-1])


class OwnRate(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 1e-3
        return super().step(closure)


@component("mutant")
class Headstrong(Sound):
    """Uses a rate of its own."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return OwnRate(as_dicts(groups), lr=self.peak_lr)


@component("mutant")
class Withering(Sound):
    """Lets all groups decay."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        own = [{"params": list(group.parameters), "weight_decay": 0.1} for group in groups]
        return torch.optim.SGD(own, lr=self.peak_lr)


@component("mutant")
class Climbing(Sound):
    """Goes uphill."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return torch.optim.SGD(as_dicts(groups), lr=self.peak_lr, maximize=True)


class Counting(torch.optim.SGD):
    num_steps = 0

    def step(self, closure: Any = None) -> Any:
        self.num_steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None if parameter.grad is None else parameter.grad / self.num_steps
        return super().step(closure)


@component("mutant")
class Counted(Sound):
    """Takes smaller steps by a count that no checkpoint has."""

    elementwise: ClassVar[bool] = False

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return Counting(as_dicts(groups), lr=self.peak_lr)


@component("mutant")
class ByNorms(SoundByNorms):
    """Says that it is elementwise, and divides by the norm of each parameter's gradient."""

    elementwise: ClassVar[bool] = True


SOUND = (Sound(), SoundByNorms())
MUTANTS = (
    (checks.check_its_groups_are_those_it_was_given, Mixing()),
    (checks.check_its_groups_are_those_it_was_given, Forgetful()),
    (checks.check_the_rate_is_the_engines, Headstrong()),
    (checks.check_decay_is_for_the_groups_that_decay, Withering()),
    (checks.check_the_loss_falls, Climbing()),
    (checks.check_a_resumed_optimizer_goes_on, Counted()),
    (checks.check_it_trains_alike_at_every_zero_stage, ByNorms()),
)
