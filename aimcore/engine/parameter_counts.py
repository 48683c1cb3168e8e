"""Numbers of parameters, and of those that are trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import attrs
from torch import nn

from aimcore.contracts.objectives import ObjectiveModule


@attrs.frozen(kw_only=True)
class ParameterCounts:
    """Numbers of parameters of a trunk, and of everything else in an objective's module."""

    trunk: int
    trunk_trained: int
    other: int
    other_trained: int

    @classmethod
    def of(cls, module: ObjectiveModule) -> Self:
        """Count the parameters of ``module``; at ZeRO stage 3, the whole ones."""
        within = list(module.trunk.parameters())
        in_trunk = {id(parameter) for parameter in within}
        outside = [parameter for parameter in module.parameters() if id(parameter) not in in_trunk]
        trunk, other = _counted(within), _counted(outside)
        return cls(trunk=trunk[0], trunk_trained=trunk[1], other=other[0], other_trained=other[1])

    @property
    def total(self) -> int:
        """Number of all parameters."""
        return self.trunk + self.other

    @property
    def trained(self) -> int:
        """Number of all trained parameters."""
        return self.trunk_trained + self.other_trained


def _counted(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    """Return the numbers of all and of trained values."""
    numbers = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in parameters]
    return sum(number for number, _ in numbers), sum(number for number, trained in numbers if trained)
