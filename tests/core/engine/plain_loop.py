"""Training without the engine: one process, the whole batch at once, every formula spelled out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from aimcore import Batch, Experiment
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine import build_module

DECAYING = {"trunk.embed.weight", "head.weight"}


def train_plainly(
    experiment: Experiment, batch_of: Callable[[int], Batch], rates: list[float]
) -> tuple[list[dict[str, float]], list[float], ObjectiveModule]:
    """Losses and gradient norms of as many steps as there are rates, and the module."""
    module = build_module(experiment).train()
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    settings = experiment.optimizer
    decoupled = settings.decay == "decoupled"
    decaying = [named[name] for name in named if name in DECAYING]
    optimizer = torch.optim.AdamW(
        [
            {"params": decaying, "weight_decay": 0.0 if decoupled else settings.weight_decay},
            {"params": [named[name] for name in named if name not in DECAYING], "weight_decay": 0.0},
        ],
        betas=settings.betas,
        eps=settings.eps,
    )
    all_losses, norms = [], []
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = module(batch_of(step))
        means = {name: loss.sum / loss.num_targets for name, loss in losses.items() if loss.num_targets}
        optimizer.zero_grad()
        sum(losses[name].weight * mean for name, mean in means.items()).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(named.values()), settings.gradient_clipping)))
        if decoupled:
            with torch.no_grad():
                for parameter in decaying:
                    parameter *= 1 - settings.weight_decay * rate / settings.peak_lr
        optimizer.step()
        all_losses.append({name: mean.item() for name, mean in means.items()})
    return all_losses, norms, module
