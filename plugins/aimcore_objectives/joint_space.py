"""What objectives share that embed images and texts in one space."""

from __future__ import annotations

from aimcore import Objective, TextTokenizer, settings
from aimcore.contracts.objectives import Skill


@settings
class JointSpace(Objective):
    """Base of objectives with two towers. A subclass places its fields, and may give them defaults."""

    tokenizer: TextTokenizer
    context_length: int

    @property
    def text(self) -> tuple[TextTokenizer, int]:
        """The tokenizer of texts, and the largest number of tokens."""
        return self.tokenizer, self.context_length

    @property
    def skills(self) -> frozenset[Skill | str]:
        """It embeds images and texts in one space."""
        return frozenset({"embed"})

    @property
    def any_grid(self) -> bool:
        """True: an image is read at a class token, or pooled, on any grid."""
        return True
