"""Checks of optimizers: they train all parameters, at the engine's rates, at every ZeRO stage that they support."""

from __future__ import annotations

from io import BytesIO
from typing import Any, NamedTuple
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore.contracts.optimizers import Optimizer
from aimcore.engine import TrainingEngine
from aimcore.engine.parameter_groups import torch_optimizer
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import as_float32, batch_for, random_images
from aimcore.testing.requirements import FAULTS, explained, require, seeded
from aimcore.testing.short_training import settings
from aimcore.testing.small_parts import StandInObjective, StandInTrunk

_RATE = 1e-3
_NUM_STEPS = 3
_TOLERANCE = 0.02
"""Largest difference between two ZeRO stages due to rounding, relative to the change of the weights."""


class _Layers(nn.Module):
    """Two layers, the first at half of the rate: four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
        self.rate_multipliers = {"first": 0.5}

    def loss(self, seed: int) -> Tensor:
        """A regression of noise."""
        with seeded(seed):
            inputs_BD, targets_BD = torch.randn(16, 6), torch.randn(16, 4)
        return functional.mse_loss(self.second(self.first(inputs_BD)), targets_BD)


class _Trained(NamedTuple):
    layers: _Layers
    optimizer: torch.optim.Optimizer


def _begun(optimizer: Optimizer) -> _Trained:
    """Two layers and their optimizer; without it, no other check than that of its groups means anything."""
    with seeded():
        layers = _Layers()
    try:
        built = torch_optimizer(layers, optimizer)
    except FAULTS as fault:
        raise SkipTest("its groups are wrong, which has its own check") from fault
    for group in built.param_groups:
        group["lr"] = _RATE
    return _Trained(layers, built)


def _step(trained: _Trained, seed: int, scale: float = 1.0) -> None:
    trained.optimizer.zero_grad()
    torch.autograd.backward([trained.layers.loss(seed) * scale])
    with explained("the optimizer's step() fails"):
        trained.optimizer.step()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def check_its_groups_are_those_it_was_given(optimizer: Optimizer) -> None:
    """``build(groups)`` returns a torch optimizer of all parameters; its groups are the given ones or parts of them."""
    with explained("build(groups) fails"):
        torch_optimizer(_Layers(), optimizer)


def check_the_rate_is_the_engines(optimizer: Optimizer) -> None:
    """The rate of a step is its group's ``lr``, which the engine sets: a group whose rate is 0 does not change."""
    trained = _begun(optimizer)
    _step(trained, 0)
    still = trained.optimizer.param_groups[0]
    still["lr"] = 0.0
    before = [weight.detach().clone() for weight in still["params"]]
    _step(trained, 1)
    moved = [one for one, other in zip(before, still["params"], strict=True) if not torch.equal(one, other)]
    require(
        not moved, "weights change at a rate of 0: read group['lr'] in every step, which the engine sets by schedule"
    )


def check_decay_is_for_the_groups_that_decay(optimizer: Optimizer) -> None:
    """Without gradients, a group with ``decays=False`` does not change."""
    trained = _begun(optimizer)
    before = _weights(trained.layers)
    _step(trained, 0, scale=0.0)
    moved = [name for name, weight in _weights(trained.layers).items() if not torch.equal(weight, before[name])]
    vectors = [name for name in moved if before[name].dim() < 2]
    require(not vectors, f"{vectors} decay, although their group has decays=False: give that group a weight decay of 0")


def check_the_loss_falls(optimizer: Optimizer) -> None:
    """Twenty small steps on one batch lower the loss."""
    trained = _begun(optimizer)
    before = float(trained.layers.loss(0).detach())
    for _ in range(20):
        _step(trained, 0)
    after = float(trained.layers.loss(0).detach())
    require(after < before, f"after 20 steps at a rate of {_RATE} the loss has gone from {before:.5g} to {after:.5g}")


def check_a_resumed_optimizer_goes_on(optimizer: Optimizer) -> None:
    """All of its state is in ``state_dict()``, as numbers and tensors: loaded again, the next steps are the same."""
    whole, resumed = _begun(optimizer), _begun(optimizer)
    for step in range(_NUM_STEPS):
        _step(whole, step)
    saved = BytesIO()
    torch.save(whole.optimizer.state_dict(), saved)
    saved.seek(0)
    with explained("its state cannot be loaded again. Checkpoints hold numbers, text, lists, dicts and tensors only"):
        resumed.layers.load_state_dict(whole.layers.state_dict())
        resumed.optimizer.load_state_dict(_loaded(saved))
    for step in range(_NUM_STEPS, 2 * _NUM_STEPS):
        _step(whole, step)
        _step(resumed, step)
    expected = _weights(whole.layers)
    lost = [name for name, weight in _weights(resumed.layers).items() if not torch.equal(weight, expected[name])]
    require(not lost, f"after it was saved and loaded, {lost} have other updates: keep all state in self.state[p]")


def _loaded(saved: BytesIO) -> Any:
    try:
        return torch.load(saved, weights_only=True)
    except Exception as error:  # pickle's errors are of many types
        raise ValueError(str(error).splitlines()[0]) from error


def check_it_trains_alike_at_every_zero_stage(optimizer: Optimizer) -> None:
    """If it says that it is ``elementwise``, three steps at ZeRO stages 1 and 3 give the weights of stage 0."""
    _begun(optimizer)
    start, expected = _trained_at(optimizer, 0)
    ways = sum(float((expected[name] - start[name]).square().sum()) for name in expected) ** 0.5
    for stage in (1, 3):
        with explained(f"does not train at ZeRO stage {stage}"):
            _, found = _trained_at(optimizer, stage)
        apart = sum(float((found[name] - expected[name]).square().sum()) for name in expected) ** 0.5
        require(
            apart <= _TOLERANCE * ways,
            f"at ZeRO stage {stage} weights differ from stage 0 by {apart:.3g} (they changed by {ways:.3g}): "
            "there, parameters are parts of a flat vector, updated one after another. If updates depend on a "
            "parameter's shape or norm, or on the number of calls, leave elementwise = False",
        )


def _trained_at(optimizer: Optimizer, stage: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    with seeded():
        module = StandInObjective().build(StandInTrunk().build())
    with seeded(), TrainingEngine(settings(zero_stage=stage, optimizer=optimizer), module) as engine:
        start = engine.full_state_dict()
        for step in range(_NUM_STEPS):
            engine.step([as_float32(batch_for(StandInObjective(), random_images(number=4, seed=step)))])
        return start, engine.full_state_dict()


CHECKS: tuple[Check, ...] = (
    check_its_groups_are_those_it_was_given,
    check_the_rate_is_the_engines,
    check_decay_is_for_the_groups_that_decay,
    check_the_loss_falls,
    check_a_resumed_optimizer_goes_on,
    check_it_trains_alike_at_every_zero_stage,
)


def checks_of(optimizer: Optimizer) -> tuple[Check, ...]:
    """The checks that ``optimizer`` must pass: one that is not elementwise runs at ZeRO stage 0 only."""
    return CHECKS if optimizer.elementwise else CHECKS[:-1]
