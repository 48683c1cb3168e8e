"""A grid of classifiers that differ in their learning rate only, trained side by side in one pass over the features.

Shape suffixes: G settings of the grid, C classes, D width; lower-case b is a batch of samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import cos, pi
from typing import Any

import attrs
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from aimcore import FittedProbe, InvalidValue, LabelledFeatures

_PREDICTION_BATCH = 4096


class GridModule(nn.Module, ABC):
    """G classifiers in one module. The first axis of every parameter is G, so that no two settings share one."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for features of ``b`` samples."""


@attrs.frozen
class Training:
    """How a grid is trained; see the fields of the probe that makes it."""

    learning_rates: tuple[float, ...]
    min_lr: float
    weight_decay: float
    betas: tuple[float, float]
    epochs: int
    warmup_epochs: int
    batch_size: int
    gradient_clipping: float | None


@attrs.frozen(eq=False)
class FittedGrid(FittedProbe):
    """The best setting of a grid."""

    module: GridModule
    setting: int
    choice: dict[str, Any]

    def predict(self, features: Tensor) -> Tensor:
        """``[n]`` classes by the chosen setting."""
        return _predictions(self.module, features)[:, self.setting]


def fit_grid(
    module: GridModule, train: LabelledFeatures, held_out: LabelledFeatures, how: Training, generator: Generator
) -> FittedGrid:
    """Train every setting on ``train`` and keep the one with the best accuracy on ``held_out``.

    Of equally good settings the first of the grid is kept. ``generator`` (on the CPU) shuffles the samples.

    Raises:
        InvalidValue: too few samples, or labels that are no classes.
    """
    _check(train, held_out)
    _train(module, train, how, generator)
    correct_nG = _predictions(module, held_out.features) == held_out.labels[:, None]
    scores = correct_nG.double().mean(0).tolist()
    best = max(range(len(scores)), key=scores.__getitem__)
    choice = {
        "learning_rate": how.learning_rates[best],
        "held_out_top1": scores[best],
        "grid": {f"{rate:g}": score for rate, score in zip(how.learning_rates, scores, strict=True)},
    }
    return FittedGrid(module=module, setting=best, choice=choice)


def learning_rate(peak: float, step: int, num_steps: int, num_warmup: int, min_lr: float) -> float:
    """Linear warm-up from 0, then half a cosine from ``peak`` towards ``min_lr``."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return min_lr + (peak - min_lr) * (1 + cos(pi * progress)) / 2


def _check(train: LabelledFeatures, held_out: LabelledFeatures) -> None:
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


def _train(module: GridModule, train: LabelledFeatures, how: Training, generator: Generator) -> None:
    parameters = list(module.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = _optimizer(parameters, how)
    batch_size = min(how.batch_size, len(train.labels))
    per_epoch = len(train.labels) // batch_size
    num_steps, num_warmup = how.epochs * per_epoch, how.warmup_epochs * per_epoch
    module.train()
    for step, index_b in enumerate(_shuffled(len(train.labels), batch_size, how.epochs, generator)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak_lr"], step, num_steps, num_warmup, how.min_lr)
        for parameter in parameters:
            parameter.grad.zero_()  # type: ignore[union-attr]  # in place: the optimiser holds views of it
        _loss(module(train.features[index_b]), train.labels[index_b]).backward()  # type: ignore[no-untyped-call]
        if how.gradient_clipping is not None:
            _clip([parameter.grad for parameter in parameters], how.gradient_clipping)  # type: ignore[misc]
        optimizer.step()
    module.eval()


def _optimizer(parameters: Sequence[nn.Parameter], how: Training) -> torch.optim.AdamW:
    """AdamW over views of each setting's slice, so that each has its own rate; vectors are not decayed."""
    groups = []
    for parameter in parameters:
        decay = how.weight_decay if parameter.dim() > 2 else 0.0
        for setting, rate in enumerate(how.learning_rates):
            part = nn.Parameter(parameter.detach()[setting])
            part.grad = parameter.grad[setting]  # type: ignore[index]
            groups.append({"params": [part], "peak_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=how.betas, fused=True)


def _shuffled(num_samples: int, batch_size: int, epochs: int, generator: Generator) -> Iterator[Tensor]:
    """Batches of indices; an incomplete last one is left out, for BatchNorm's sake (another one each epoch)."""
    for _ in range(epochs):
        order = torch.randperm(num_samples, generator=generator)
        yield from torch.split(order[: num_samples - num_samples % batch_size], batch_size)


def _loss(logits_bGC: Tensor, labels_b: Tensor) -> Tensor:
    """The sum over settings of each one's mean loss: a setting's gradient is its own alone."""
    batch, settings, _ = logits_bGC.shape
    labels_Gb = labels_b.expand(settings, batch)
    return functional.cross_entropy(logits_bGC.permute(1, 2, 0), labels_Gb, reduction="sum") / batch


def _clip(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each setting's gradient to a norm of at most ``limit``, as torch's ``clip_grad_norm_`` would."""
    norm_G = sum(gradient.flatten(1).square().sum(1) for gradient in gradients).sqrt()  # type: ignore[union-attr]
    scale_G = (limit / (norm_G + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale_G.reshape(-1, *(1,) * (gradient.dim() - 1)))


@torch.no_grad()
def _predictions(module: GridModule, features: Tensor) -> Tensor:
    """``[n, G]`` classes by every setting."""
    return torch.cat([module(part).argmax(-1) for part in torch.split(features, _PREDICTION_BATCH)])
