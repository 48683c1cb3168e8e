"""What a trained objective can do, beyond its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from aimcore.component import Component

if TYPE_CHECKING:
    from aimcore.evaluation.material import Material
    from aimcore.modules import ObjectiveModule
    from aimcore.roles.objectives import Objective
    from aimcore.values import Score


class Evaluation(Component, ABC):
    """A measurement of the trained objective: zero-shot classification, retrieval, captions."""

    __slots__ = ()
    role: ClassVar[str] = "evaluations"

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield why modules of ``objective`` cannot be measured so (it gives no embeddings, say)."""
        return ()

    def problems_with_data(self, material: Material) -> Iterable[str]:
        """Yield why it cannot be measured on this data (no class names, say)."""
        return ()

    @abstractmethod
    def scores(self, module: ObjectiveModule, material: Material) -> Mapping[str, Score]:
        """What was measured, by name. Every process calls it, and all get the same."""
