"""A frozen encoder with everything that is needed to read images with it, whatever file or library it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import Images, Preprocessing
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.feature_extraction import ProbeAttention


@attrs.frozen(eq=False)
class Towers:
    """Two towers, which embed images and texts in one space."""

    module: ObjectiveModule
    """With the skill ``embed``."""
    tokenizer: TextTokenizer
    context_length: int

    @property
    def width(self) -> int:
        """E, the width of the shared space."""
        return int(self.embed_texts(["a"]).shape[1])

    def embed_images(self, images: Images) -> Tensor:
        """Return ``[B, E]`` of unit length."""
        return self.module.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return ``[B, E]`` of unit length, on the CPU."""
        with eval_mode(self.module):
            return self.module.embed_texts(self.tokenizer.encode(texts, self.context_length)).float().cpu()


@attrs.frozen(eq=False, kw_only=True)
class FrozenEncoder:
    """A trunk with its weights, and the preprocessing that they expect."""

    name: str
    """What the user called it: a file, a folder, a run, a model of a library."""
    trunk: Trunk
    module: TrunkModule
    """In evaluation mode."""
    pixels: Preprocessing
    image_size: int
    """Side of the square images that it reads by default, in pixels."""
    objective: Objective | None = None
    """Determines the reading order; None is raster order."""
    attention: ProbeAttention = "bidirectional"
    towers: Towers | None = None
    """The towers that the trunk is part of, if it has any."""
    origin: Mapping[str, Any] = attrs.field(factory=dict)
    """Plain values with which :func:`aimcore.running.frozen_encoders.open_encoder` finds it again."""

    def to(self, device: torch.device) -> FrozenEncoder:
        """Move the weights to ``device``."""
        (self.module if self.towers is None else self.towers.module).to(device)
        self.module.to(device)
        return self
