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
    """Trainable parameters that are updated by the same settings."""

    parameters: tuple[nn.Parameter, ...]
    """Each trainable parameter of the model is in one group."""
    decays: bool
    """Whether weight decay applies: to matrices, and not to biases, norms, positions and other learned vectors."""
    peak_lr: float
    """The highest learning rate of this group: the optimizer's ``peak_lr`` times the group's rate multiplier."""


@settings
class Optimizer(Component, ABC):
    """The algorithm of the updates, with the settings that the engine needs whatever the algorithm is.

    The engine sets the learning rate of every step (``group["lr"]``) and clips gradients; a component only builds the
    torch optimizer.
    """

    role: ClassVar[str] = "optimizers"

    elementwise: ClassVar[bool] = False
    """Whether each number's update depends on its own gradients and state alone, as in SGD and Adam.

    ZeRO stages 1 to 3 store the parameters of a group as parts of one flat vector. An algorithm that reads the shape or
    the norm of a parameter (Muon, LAMB, Adafactor) would compute something else there, so it runs at stage 0 only.
    """

    peak_lr: float = 1e-3
    gradient_clipping: float | None = 1.0
    """Largest global gradient norm; None does not clip."""
    layer_decay: float = 1.0
    """Rate of each layer of the trunk, relative to the layer above it (BEiT, arXiv:2106.08254): a layer's rate is
    multiplied by ``layer_decay ** (depth + 1 - layer)``, where embeddings are layer 0 and the first block is layer 1.
    1 trains all layers at one rate; other values need a trunk that knows the layer of a parameter
    (``TrunkModule.layer_of``)."""

    def problems(self) -> Iterable[Problem]:
        """Rates must be positive, ``layer_decay`` at most 1. A subclass yields these (``super().problems()``) too."""
        yield from positive("peak_lr", self.peak_lr, limits.RATE)
        if self.gradient_clipping is not None and not self.gradient_clipping > 0:
            yield Problem("gradient_clipping", f"must be positive or null, got {self.gradient_clipping}")
        yield from within("layer_decay", self.layer_decay, 0.1, 1)

    @abstractmethod
    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """The torch optimizer of ``groups``.

        Each parameter group of the torch optimizer holds parameters of one of ``groups`` only, and each parameter is in
        one. The learning rate that it is built with does not matter.
        """
