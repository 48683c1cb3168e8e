"""Classifiers that differ only in learning rate and weight decay, trained in one pass over the features.

Shape suffixes: G settings of the grid, C classes, D width; lower-case b is a batch of samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import cos, pi
from typing import Any, NamedTuple

import attrs
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from aimcore import FittedProbe, InvalidValue
from aimcore_probes.samples import Batch, Samples, bounded_batch
from aimcore_probes.threads import threads_for


class GridModule(nn.Module, ABC):
    """G classifiers in one module. The first axis of every parameter is G, so that no two settings share one."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return ``[b, G, C]`` logits for features of ``b`` samples."""


@attrs.frozen(eq=False)
class FittedGrid(FittedProbe):
    """The best setting of a grid."""

    module: GridModule
    setting: int
    choice: dict[str, Any]

    def predict(self, features: Tensor) -> Tensor:
        """Return ``[n]`` classes by the chosen setting, on the CPU."""
        size = bounded_batch(tuple(features.shape[1:]))
        parts = [_predicted_bG(self.module, part) for part in torch.split(features, size)]
        return torch.cat(parts)[:, self.setting]


class GridTraining(NamedTuple):
    """How the classifiers of a grid are trained."""

    grid: tuple[tuple[float, float], ...]
    """(peak rate, weight decay) of every classifier."""
    min_lr: float
    """Learning rate at the end of every cosine."""
    betas: tuple[float, float]
    epochs: int
    """Passes over the features."""
    warmup_epochs: int
    """Number of these passes with a linearly rising rate."""
    batch_size: int
    gradient_clipping: float | None
    """Largest gradient norm of each classifier; None does not clip."""


def fit_grid(
    how: GridTraining, module: GridModule, train: Samples, held_out: Samples, generator: Generator
) -> FittedGrid:
    """Train every setting of ``how.grid`` on ``train``, and keep the one with the best accuracy on ``held_out``.

    Of equally good settings, the first one of the grid is kept. ``generator`` (on the CPU) shuffles the samples. The
    module trains on an accelerator if there is one.

    Raises:
        InvalidValue: too few samples, or labels that are not classes.
    """
    _check(train, held_out)
    module.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    samples = min(how.batch_size, len(train.labels))
    with threads_for(samples * sum(parameter.numel() for parameter in module.parameters())):
        _train(module, train, how, generator)
    scores = _accuracies(module, held_out, len(how.grid))
    best = max(range(len(scores)), key=scores.__getitem__)
    choice = {
        "learning_rate": how.grid[best][0],
        "weight_decay": how.grid[best][1],
        "held_out_top1": scores[best],
        "grid": {_name(setting, how): score for setting, score in zip(how.grid, scores, strict=True)},
    }
    return FittedGrid(module=module, setting=best, choice=choice)


def _name(setting: tuple[float, float], how: GridTraining) -> str:
    """Format the rate, with the decay if there are several."""
    return f"{setting[0]:g}" if len({decay for _, decay in how.grid}) == 1 else f"{setting[0]:g} (decay {setting[1]:g})"


def learning_rate(peak: float, step: int, num_steps: int, num_warmup: int, min_lr: float) -> float:
    """Linear warm-up from 0, then half a cosine from ``peak`` to ``min_lr``."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return min_lr + (peak - min_lr) * (1 + cos(pi * progress)) / 2


def _check(train: Samples, held_out: Samples) -> None:
    problems = []
    if len(train.labels) < 2:
        problems.append(("train", f"a probe needs at least 2 samples to train on, got {len(train.labels)}"))
    if not len(held_out.labels):
        problems.append(("held_out", "a probe needs held-out samples to choose its learning rate on, got none"))
    for path, part in (("train", train), ("held_out", held_out)):
        if bool(((part.labels < 0) | (part.labels >= part.num_classes)).any()):
            low, high = int(part.labels.min()), int(part.labels.max())
            problems.append((path, f"labels must lie in [0, {part.num_classes - 1}], got {low} to {high}"))
    if problems:
        raise InvalidValue("probe", problems)


def _train(module: GridModule, train: Samples, how: GridTraining, generator: Generator) -> None:
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = _optimizer(parameters, how)
    batch_size = min(how.batch_size, len(train.labels))
    per_epoch = len(train.labels) // batch_size
    num_steps, num_warmup = how.epochs * per_epoch, how.warmup_epochs * per_epoch
    module.train()
    for step, (features, labels_b) in enumerate(_epochs(train, how.epochs, batch_size, generator)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak_lr"], step, num_steps, num_warmup, how.min_lr)
        for parameter in parameters:
            parameter.grad.zero_()  # type: ignore[union-attr]  # in place, because the optimiser has views of it
        logits_bGC = module(features.to(parameters[0].device))
        _loss(logits_bGC, labels_b.to(logits_bGC.device)).backward()  # type: ignore[no-untyped-call]
        if how.gradient_clipping is not None:
            _clip([parameter.grad for parameter in parameters], how.gradient_clipping)  # type: ignore[misc]
        optimizer.step()
    module.eval()


def _optimizer(parameters: Sequence[nn.Parameter], how: GridTraining) -> torch.optim.AdamW:
    """Return AdamW over views of each setting's slice, so that each has its own rate. Vectors are not decayed."""
    groups = []
    for setting, (rate, decay) in enumerate(how.grid):
        parts = [_slice(parameter, setting) for parameter in parameters]
        # With so few weights, most of a step is the optimiser's own loop: use as few groups as possible.
        for decayed, is_vector in ((decay, False), (0.0, True)):
            kept = [part for part in parts if (part.dim() < 2) == is_vector]
            groups.append({"params": kept, "peak_lr": rate, "weight_decay": decayed})
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=how.betas, fused=True)


def _slice(parameter: nn.Parameter, setting: int) -> nn.Parameter:
    part = nn.Parameter(parameter.detach()[setting])
    part.grad = parameter.grad[setting]  # type: ignore[index]
    return part


def _epochs(train: Samples, epochs: int, batch_size: int, generator: Generator) -> Iterator[Batch]:
    # Whole batches only, because of BatchNorm.
    for _ in range(epochs):
        yield from train.shuffled(batch_size, generator)


def _loss(logits_bGC: Tensor, labels_b: Tensor) -> Tensor:
    """Return the sum of all settings' mean losses: the gradient of a setting depends on that setting alone."""
    batch, settings, _ = logits_bGC.shape
    labels_Gb = labels_b.expand(settings, batch)
    return functional.cross_entropy(logits_bGC.permute(1, 2, 0), labels_Gb, reduction="sum") / batch


def _clip(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each setting's gradient to a norm of at most ``limit``, like torch's ``clip_grad_norm_``."""
    norm_G = sum(gradient.flatten(1).square().sum(1) for gradient in gradients).sqrt()  # type: ignore[union-attr]
    scale_G = (limit / (norm_G + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale_G.reshape(-1, *(1,) * (gradient.dim() - 1)))


def _accuracies(module: GridModule, held_out: Samples, num_settings: int) -> list[float]:
    """Return the share of samples that each setting classifies correctly."""
    correct_G = torch.zeros(num_settings, dtype=torch.int64)
    for features, labels_b in held_out.in_order():
        correct_G += (_predicted_bG(module, features) == labels_b[:, None]).sum(0)
    return (correct_G.double() / len(held_out.labels)).tolist()


@torch.no_grad()
def _predicted_bG(module: GridModule, features: Tensor) -> Tensor:
    """Return ``[b, G]`` classes by every setting, on the CPU."""
    device = next(module.parameters()).device
    predicted_bG: Tensor = module(features.to(device)).argmax(-1)
    return predicted_bG.cpu()
