"""The towers of two-tower models of transformers, CLIP and SigLIP, around an image tower that is the trunk.

Shape suffixes: B batch, N patches, R extra tokens, T text tokens, D width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import (
    AimcoreError,
    Batch,
    Features,
    Images,
    Loss,
    ObjectiveModule,
    Problem,
    Reading,
    Text,
    TextTokenizer,
    TrunkModule,
    at_least,
    component,
)  # fmt: skip
from aimcore.contracts import limits
from aimcore.contracts.messages import shown
from aimcore_objectives.joint_space import JointSpace
from aimcore_objectives.logit_scale import LogitScale
from aimcore_objectives.steps import at_least_float32
from aimcore_trunks.foreign import FAULTS
from aimcore_trunks.transformers_models import config_of

FAMILIES = ("clip", "siglip")
"""Types of models of transformers (``model_type``) whose towers are known."""


class OtherTower(AimcoreError):
    """A trunk or a tokenizer does not belong to the towers."""


@component("transformers_towers")
class TransformersTowers(JointSpace):
    """What surrounds the image tower of CLIP (arXiv:2103.00020) or SigLIP (arXiv:2303.15343) in transformers.

    It embeds images and texts in one space, for zero-shot classification, retrieval and search. It trains nothing: it
    is for experiments with ``num_steps=0`` and ``initial_weights`` of the same file, which ``aimcore.load_encoder``
    opens. Requires the extra ``transformers``.
    """

    config: str
    """The configuration of the whole model as JSON: the content of its ``config.json``."""
    tokenizer: TextTokenizer
    context_length: int
    """Number of ids of a text. SigLIP was trained on texts that are padded to it, and reads their last token."""

    @property
    def has_losses(self) -> bool:
        """False."""
        return False

    def problems(self) -> Iterable[Problem]:
        """Yield a configuration that cannot be read or is of another family, and a context without ids."""
        yield from at_least("context_length", self.context_length, 1, limits.PATCHES)
        try:
            family = config_of(self.config).model_type
        except FAULTS as error:
            problem = f"is not the JSON of a configuration of transformers: {error}; got {shown(self.config)}"
            yield Problem("config", problem)
        else:
            if family not in FAMILIES:
                yield Problem("config", f"must be of one of the models {', '.join(FAMILIES)}, got {shown(family)}")

    def build(self, trunk: TrunkModule) -> TransformersTowersModule:
        """Build the trunk with both towers.

        Raises:
            OtherTower: the trunk has another width than the image tower.
        """
        return TransformersTowersModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples: the checks of objectives are checks of losses."""
        return ()


class TransformersTowersModule(ObjectiveModule):
    """The module of :class:`TransformersTowers`. Its parts are those of transformers, with their weights."""

    def __init__(self, config: TransformersTowers, trunk: TrunkModule) -> None:
        super().__init__()
        model = _around_the_trunk(config.config)
        expected = model.config.vision_config.hidden_size
        if trunk.width != expected:
            raise OtherTower(f"the image tower of this model has the width {expected}, and the trunk {trunk.width}")
        self.trunk = trunk
        self.text_tower = TextTower(model.text_model, getattr(model, "text_projection", None))
        is_clip = model.config.model_type == "clip"
        self.image_tower: nn.Module = (
            ClassTokenTower(model.vision_model.post_layernorm, model.visual_projection)
            if is_clip
            else PoolingTower(model.vision_model.head)
        )
        self.scale = LogitScale(0.0, None if is_clip else 0.0, bounded=False)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return no counts."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return no losses."""
        return {}

    def embed_images(self, images: Images) -> Tensor:
        """Return ``[B, E]`` of unit length.

        Raises:
            OtherTower: the trunk has no class token, which CLIP reads.
        """
        embedded_BE: Tensor = self.image_tower(self.trunk(images, Reading()))
        return functional.normalize(at_least_float32(embedded_BE), dim=-1)

    def embed_texts(self, text: Text) -> Tensor:
        """Return ``[B, E]`` of unit length.

        Raises:
            OtherTower: an id is beyond the vocabulary of the model.
        """
        embedded_BE: Tensor = self.text_tower(text.ids_BT)
        return functional.normalize(at_least_float32(embedded_BE), dim=-1)


class TextTower(nn.Module):
    """Ids ``[B, T]`` to ``[B, E]``: the text model of transformers, and CLIP's projection."""

    def __init__(self, model: nn.Module, project: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.project = nn.Identity() if project is None else project

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Embed texts as :class:`TransformersTowersModule` does, before the normalisation."""
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]  # a method of transformers
        # A traced graph has no numbers to compare.
        if not torch.compiler.is_exporting() and int(ids_BT.max()) >= embedding.num_embeddings:
            raise OtherTower(
                f"a text has the id {int(ids_BT.max())}, and the model's vocabulary has {embedding.num_embeddings}: "
                "the tokenizer belongs to another model"
            )
        # No mask: CLIP is causal, so that padding does not reach the end token; SigLIP was trained without one.
        embedded_BE: Tensor = self.project(self.model(input_ids=ids_BT.to(embedding.weight.device)).pooler_output)
        return embedded_BE


class ClassTokenTower(nn.Module):
    """Image features to ``[B, E]`` as in CLIP: norm and projection of the class token."""

    def __init__(self, norm: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.norm, self.project = norm, project

    def forward(self, features: Features) -> Tensor:
        """Embed images as :class:`TransformersTowersModule` does, before the normalisation."""
        if features.extra_BRD is None:
            raise OtherTower("CLIP reads images at a class token, and this trunk has none (num_extra is 0)")
        embedded_BE: Tensor = self.project(self.norm(features.extra_BRD[:, 0]))
        return embedded_BE


class PoolingTower(nn.Module):
    """Image features to ``[B, E]`` as in SigLIP: an attention pool and a feed-forward network."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Features) -> Tensor:
        """Embed images as :class:`TransformersTowersModule` does, before the normalisation."""
        embedded_BE: Tensor = self.head(features.tokens_BND)
        return embedded_BE


def _around_the_trunk(config: str) -> Any:
    """Build the model of transformers; its image tower has no blocks, because the trunk is the image tower."""
    from transformers import AutoModel

    settings = config_of(config)
    settings.vision_config.num_hidden_layers = 0
    build: Any = AutoModel.from_config
    return build(settings)
