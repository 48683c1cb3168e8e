"""I-JEPA for aimcore: the module that this distribution's entry point names."""

from __future__ import annotations

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_ijepa.masks import BlockMasks, Blocks
from aimcore_ijepa.objective import IJEPA, IJEPAModule
from aimcore_ijepa.predictor import Predictor


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """The objectives that this plugin supplies."""
    return [IJEPA]


__all__ = ["IJEPA", "BlockMasks", "Blocks", "IJEPAModule", "Predictor"]
