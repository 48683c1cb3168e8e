"""AdamW, with weight decay that is coupled to the learning rate or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch

from aimcore import Problem, at_least, component, positive
from aimcore.contracts import limits
from aimcore.contracts.optimizers import Optimizer, ParameterGroup


@component("adamw", paper="arXiv:1711.05101; defaults: arXiv:2401.08541, Table 10")
class AdamW(Optimizer):
    """AdamW with decay on matrices only (none on biases, norms, positions); defaults: arXiv:2401.08541, Table 10."""

    elementwise: ClassVar[bool] = True

    weight_decay: float = 0.05
    decay: Literal["coupled", "decoupled"] = "coupled"
    """What a decaying weight is multiplied with in a step: coupled, 1 - rate x weight_decay (torch's AdamW);
    decoupled, 1 - rate / peak_lr x weight_decay (arXiv:2411.14402, Table A1): it does not scale with ``peak_lr``, and
    takes a far smaller ``weight_decay``: 1e-4 in that table, where 0.05 would leave nothing of a weight."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def problems(self) -> Iterable[Problem]:
        """Rates must be positive, betas in [0, 1)."""
        yield from super().problems()
        yield from at_least("weight_decay", self.weight_decay, 0, limits.DECAY)
        if self.decay == "decoupled" and self.weight_decay >= 1:
            yield Problem("weight_decay", f"must be below 1 where decay is 'decoupled', got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            yield Problem("betas", f"must lie in [0, 1), got {self.betas}")
        yield from positive("eps", self.eps, 1)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        """Torch's AdamW, which multiplies a weight with 1 - rate x ``weight_decay`` of its group.

        Decoupled decay is therefore a group whose ``weight_decay`` is divided by the group's own peak rate: it is the
        same for all groups, whatever their rate multipliers.
        """
        # Fused: on CPUs the plain form spends as long on small models as their backward pass.
        return torch.optim.AdamW(
            [{"params": list(group.parameters), "weight_decay": self._decay_of(group)} for group in groups],
            lr=self.peak_lr,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )

    def _decay_of(self, group: ParameterGroup) -> float:
        if not group.decays:
            return 0.0
        return self.weight_decay / group.peak_lr if self.decay == "decoupled" else self.weight_decay
