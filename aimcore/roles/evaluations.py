"""What a trained objective can do, beyond its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

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

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        """Small objectives that the conformance kit checks it on, besides its own stand-ins, which embed and caption.

        Override it where it measures what only some objectives do. They are built on a small trunk that can do all
        that trunks can, and given pictures of 4 x 4 patches with captions, with and without labels.
        """
        return ()

    @property
    def title(self) -> str:
        """What its scores are called in front of the slash, as in ``"retrieval/image_to_text@5"``.

        No two evaluations of an experiment may have the same: override it where one may be used twice.
        """
        return self.name

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield why modules of ``objective`` cannot be measured so: what it ``can`` is not enough, say."""
        return ()

    def problems_with_data(self, material: Material) -> Iterable[str]:
        """Yield why it cannot be measured on this data (no class names, say)."""
        return ()

    def protocol(self, material: Material) -> Mapping[str, Any]:
        """What a reader must know to compare its scores with others', besides the settings; plain values.

        Such as which images and how many candidates there are, and how they are compared.
        """
        return {}

    @abstractmethod
    def scores(self, module: ObjectiveModule, material: Material) -> Mapping[str, Score]:
        """What was measured, by name; shares of things that were judged, at least one.

        ``module`` is in evaluation mode and without gradients already. Every process calls this, each has its own share
        of ``material.batches(...)``, and all must give the same: ``material.rows(...)`` brings those of all together.
        """
