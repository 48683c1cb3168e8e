"""Optimizers: the algorithm that turns gradients into updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from aimcore.contracts import limits
from aimcore.contracts.component import Component, positive, settings, within
from aimcore.contracts.errors import Problem


class ParameterGroup(NamedTuple):
    """Trainable parameters that share the settings of their updates."""

    parameters: tuple[nn.Parameter, ...]
    """The parameters. Each trainable parameter of the model is in one group."""
    decays: bool
    """Whether weight decay applies: to matrices, but not to biases, norms, positions and other learned vectors."""
    peak_lr: float
    """The highest learning rate of this group: the optimizer's ``peak_lr`` times the group's rate multiplier."""


@settings
class Optimizer(Component, ABC):
    """The algorithm of the updates, with the settings that the engine needs for every algorithm.

    The engine sets the learning rate of every step (``group["lr"]``) and clips gradients. A component only builds the
    torch optimizer.
    """

    role: ClassVar[str] = "optimizers"

    elementwise: ClassVar[bool] = False
    """Whether the update of each element depends only on its own gradients and state, as in SGD and Adam.

    ZeRO stages 1 to 3 store the parameters of a group as parts of one flat vector. An algorithm that reads the shape or
    the norm of a parameter (Muon, LAMB, Adafactor) would be wrong there, so it runs at stage 0 only.
    """

    peak_lr: float = 1e-3
    """The learning rate after warm-up; schedules are relative to it."""
    gradient_clipping: float | None = 1.0
    """Largest global gradient norm; None does not clip."""
    layer_decay: float = 1.0
    """Rate of each layer of the trunk, relative to the layer above it (BEiT, arXiv:2106.08254): a layer's rate is
    multiplied by ``layer_decay ** (depth + 1 - layer)``, where embeddings are layer 0 and the first block is layer 1.
    1 trains all layers at one rate; other values require a trunk that implements ``TrunkModule.layer_of``."""

    def problems(self) -> Iterable[Problem]:
        """Yield problems of rates and ``layer_decay``. A subclass must yield ``super().problems()`` too."""
        yield from positive("peak_lr", self.peak_lr, limits.RATE)
        if self.gradient_clipping is not None and not self.gradient_clipping > 0:
            yield Problem("gradient_clipping", f"must be positive or null, got {self.gradient_clipping}")
        yield from within("layer_decay", self.layer_decay, 0.1, 1)

    @abstractmethod
    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the torch optimizer of ``groups``.

        Each parameter must be in one parameter group of the torch optimizer, and each of its parameter groups must
        hold parameters of one of ``groups``. The engine overwrites the learning rate.
        """
