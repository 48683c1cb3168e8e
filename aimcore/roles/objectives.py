"""What is minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from aimcore.component import Component

if TYPE_CHECKING:
    from aimcore.modules import ObjectiveModule, TrunkModule
    from aimcore.roles.sources import OpenSource
    from aimcore.roles.tokenizers import TextTokenizer
    from aimcore.values import Ability, Images, PatchGrid, Reading, View


Skill = Literal["embed", "caption"]
"""What modules of an objective can do once trained: embed images and texts in one space, or caption images."""


class Objective(Component, ABC):
    """What is minimised. A component made of components: it names exactly the parts it needs."""

    __slots__ = ()
    role: ClassVar[str] = "objectives"

    @property
    def views(self) -> tuple[View, ...]:
        """Extra renderings of each crop that its module reads from ``batch.views``."""
        return ()

    @property
    def text(self) -> tuple[TextTokenizer, int] | None:
        """The tokenizer and context length of ``batch.text``; None where no text is read."""
        return None

    @property
    def needs(self) -> frozenset[Ability]:
        """What it asks of a trunk; compared with :attr:`Trunk.can` before anything is built."""
        return frozenset()

    @property
    def can(self) -> frozenset[Skill]:
        """What its module can do besides giving losses."""
        return frozenset()

    @property
    def is_separable(self) -> bool:
        """Whether a batch's loss is the sum of its samples' losses; one that is not cannot be accumulated."""
        return True

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this objective cannot train on images of ``grid`` (for example, a prefix as long as the image)."""
        return ()

    def problems_with_data(self, source: OpenSource) -> Iterable[str]:
        """Yield why this objective cannot train on or be validated with samples of ``source`` (no labels, say)."""
        return ()

    @property
    def validation_prefix(self) -> int | None:
        """Prefix length used by every validation loss; None where no prefix is configured."""
        return None

    @abstractmethod
    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        """The trunk together with heads, decoders and towers."""

    def reading(self, images: Images) -> Reading:
        """How a probe should have the trunk read ``images``: this objective's order (attention is the probe's own)."""
        from aimcore.values import Reading

        return Reading()
