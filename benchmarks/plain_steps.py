"""Training without the engine: one process, gradients of parts of a batch added in float32, every parameter in a group.

It shares with the engine the fresh module and the torch optimizer that a component builds. Master weights, means over
parts, clipping, rates and decay are written out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aimcore import Batch, Experiment, ObjectiveModule
from aimcore.contracts.optimizers import ParameterGroup
from aimcore.engine import initial_module


@attrs.frozen
class Steps:
    """The results of some steps."""

    losses: Sequence[Mapping[str, float]]
    """Mean of each loss, by step."""
    norms: Sequence[float]
    """Norm of the gradient before clipping, by step."""
    before: Mapping[str, Tensor]
    """Weights and buffers before the first step, as float32."""
    after: Mapping[str, Tensor]


def train_plainly(
    experiment: Experiment, batches: Sequence[Sequence[Batch]], rates: Mapping[str, float], *, by_use: bool = False
) -> Steps:
    """Make one update per batch.

    Args:
        experiment: its module, precision, optimizer and schedule.
        batches: the parts of the batch of each step; a part goes through the module at once.
        rates: learning-rate multipliers by parameter; others have the multiplier 1.
        by_use: whether bfloat16 gradients are added in the order of ZeRO stage 3. There autocast casts a weight again
            for each use, so that their gradients are added in float32, and each module first adds the gradients of its
            own uses of an input.
    """
    module = initial_module(experiment).train()
    for part in module.modules() if by_use else ():
        part.register_forward_pre_hook(_with_gradients_of_its_own)
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    masters = {name: nn.Parameter(each.detach().clone()) for name, each in named.items()}
    optimizer = _optimizer(experiment, module, masters, rates)
    before = {name: value.detach().clone().float() for name, value in module.state_dict().items()}
    rounds = experiment.engine.precision == "bf16"
    if rounds:
        for part in module.parameters():
            part.data = part.data.bfloat16()
        for norm in module.modules():
            if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
                norm.register_forward_pre_hook(lambda norm, inputs: (inputs[0].to(norm.weight.dtype), *inputs[1:]))
    losses, norms = [], []
    for step, parts in enumerate(batches):
        for name, parameter in named.items():
            parameter.data = masters[name].detach().bfloat16() if rounds else masters[name].detach().clone()
            masters[name].grad = None
        autocast = torch.autocast(
            "cpu", torch.bfloat16, enabled=experiment.engine.precision != "fp32", cache_enabled=not by_use
        )
        losses.append(_backward(module, parts, autocast, named, masters))
        norms.append(_clip(masters, experiment.optimizer.gradient_clipping))
        peak_lr = experiment.optimizer.peak_lr
        rate = experiment.schedule.rate(step, num_steps=experiment.num_steps, peak_lr=peak_lr)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        optimizer.step()
        with torch.no_grad(), _with(named, masters):
            module.after_step(step + 1, experiment.num_steps)
    with _with(named, masters):
        after = {name: value.detach().clone().float() for name, value in module.state_dict().items()}
    return Steps(losses, norms, before, after)


def _with_gradients_of_its_own(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs as views, at which the gradients of a module's uses of them meet."""
    return tuple(each.view_as(each) if isinstance(each, Tensor) else each for each in inputs)


def _optimizer(
    experiment: Experiment, module: nn.Module, masters: Mapping[str, nn.Parameter], rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    groups = []
    for name, master in masters.items():
        owner, _, local = name.rpartition(".")
        kept = getattr(module.get_submodule(owner), "no_weight_decay", frozenset())
        decays = master.dim() >= 2 and local not in kept
        groups.append(ParameterGroup((master,), decays, experiment.optimizer.peak_lr * rates.get(name, 1.0)))
    optimizer = experiment.optimizer.build(groups)
    names = {id(master): name for name, master in masters.items()}
    for group in optimizer.param_groups:
        group["multiplier"] = rates.get(names[id(group["params"][0])], 1.0)
    return optimizer


def _backward(
    module: ObjectiveModule,
    parts: Sequence[Batch],
    autocast: torch.autocast,
    named: Mapping[str, nn.Parameter],
    masters: Mapping[str, nn.Parameter],
) -> dict[str, float]:
    """Give the masters the gradient of the sum of weight * mean of each loss; return the means over all parts."""
    counts: dict[str, int] = defaultdict(int)
    for part in parts:
        for name, number in module.counts(part).items():
            counts[name] += number
    means: dict[str, float] = defaultdict(float)
    for part in parts:
        with autocast:
            losses = {name: loss for name, loss in module(part).items() if counts[name]}
        torch.stack([loss.sum * (loss.weight / counts[name]) for name, loss in losses.items()]).sum().backward()
        for name, loss in losses.items():
            means[name] += float(loss.sum.detach()) / counts[name]
        for name, parameter in named.items():
            if parameter.grad is not None:
                before = masters[name].grad
                masters[name].grad = parameter.grad.float() if before is None else before + parameter.grad.float()
            parameter.grad = None
    return dict(means)


def _clip(masters: Mapping[str, nn.Parameter], limit: float | None) -> float:
    """Scale the gradient to the ``limit`` if its norm is larger; return the norm before that."""
    gradients = [master.grad for master in masters.values() if master.grad is not None]
    norm = float(torch.stack([gradient.double().square().sum() for gradient in gradients]).sum().sqrt())
    if limit is not None and norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
    return norm


@contextmanager
def _with(named: Mapping[str, nn.Parameter], masters: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the module its master weights in the block."""
    kept = {name: parameter.data for name, parameter in named.items()}
    for name, parameter in named.items():
        parameter.data = masters[name].detach().clone()
    yield
    for name, parameter in named.items():
        parameter.data = kept[name]
