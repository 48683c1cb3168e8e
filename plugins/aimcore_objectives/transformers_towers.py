"""The towers of two-tower models of transformers, CLIP and SigLIP, around an image tower that is the trunk.

Shape suffixes: B batch, N patches, R extra tokens, T text tokens, D width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
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
from aimcore_objectives.contrastive_loss import ContrastiveKind, contrastive_loss, initial_scale
from aimcore_objectives.joint_space import JointSpace
from aimcore_objectives.steps import at_least_float32
from aimcore_objectives.texts import text_of
from aimcore_trunks.foreign import FAULTS, exempt_vectors_from_decay
from aimcore_trunks.transformers_building import config_of

LOSSES: Mapping[str, ContrastiveKind] = MappingProxyType({"clip": "softmax", "siglip": "sigmoid"})
"""The loss of each type of model of transformers (``model_type``) whose towers are known."""


class OtherTower(AimcoreError):
    """A trunk or a tokenizer does not belong to the towers."""


@component("transformers_towers")
class TransformersTowers(JointSpace):
    """What surrounds the image tower of CLIP (arXiv:2103.00020) or SigLIP (arXiv:2303.15343) in transformers.

    It embeds images and texts in one space, for zero-shot classification, retrieval and search.
    ``aimcore.load_encoder`` opens such files. Without ``loss`` it trains nothing, for experiments with ``num_steps=0``
    and ``initial_weights`` of the same file. With ``loss`` it trains both towers, further or from random weights, and
    ``frozen=("trunk", "image_tower")`` locks the image tower as in LiT (arXiv:2111.07991).

    The losses are those of :class:`~aimcore_objectives.Contrastive` over the global batch, and equal those of
    transformers (``return_loss=True``): the scale of similarities has no bound here, where CLIP's authors keep it at
    100 or below. ``frozen=("scale",)`` keeps that of the file. Requires the extra ``transformers``.
    """

    config: str
    """The configuration of the whole model as JSON: the content of its ``config.json``."""
    tokenizer: TextTokenizer
    context_length: int
    """Number of ids of a text. SigLIP was trained on texts that are padded to it, and reads their last token."""
    loss: ContrastiveKind | None = None
    """``softmax`` for CLIP, ``sigmoid`` for SigLIP; None trains nothing."""

    @property
    def has_losses(self) -> bool:
        """Whether a loss is given."""
        return self.loss is not None

    @property
    def is_separable(self) -> bool:
        """False with a loss, which compares samples: micro-batches would change it."""
        return self.loss is None

    @property
    def mixed_grids(self) -> bool:
        """False: SigLIP's pooling would read padding."""
        return False

    def problems(self) -> Iterable[Problem]:
        """Yield a configuration that cannot be read or is of another family, its other loss, and a context of 0 ids."""
        yield from at_least("context_length", self.context_length, 1, limits.PATCHES)
        try:
            family = config_of(self.config).model_type
        except FAULTS as error:
            problem = f"is not the JSON of a configuration of transformers: {error}; got {shown(self.config)}"
            yield Problem("config", problem)
        else:
            if family not in LOSSES:
                yield Problem("config", f"must be of one of the models {', '.join(LOSSES)}, got {shown(family)}")
            elif self.loss not in (None, LOSSES[family]):
                problem = f"must be {LOSSES[family]!r} (or None) for a model of {family}, got {shown(self.loss)}"
                yield Problem("loss", problem)

    def build(self, trunk: TrunkModule) -> TransformersTowersModule:
        """Build the trunk with both towers.

        Raises:
            OtherTower: the trunk has another width than the image tower.
        """
        return TransformersTowersModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples: they need the extra ``transformers``."""
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
        self.loss = config.loss
        vision, is_clip = model.vision_model, model.config.model_type == "clip"
        self.image_tower: ClassTokenTower | PoolingTower = (
            ClassTokenTower(_norm_of(trunk), vision.post_layernorm, model.visual_projection)
            if is_clip
            else PoolingTower(vision.head)
        )
        self.scale = initial_scale(LOSSES[model.config.model_type], bounded=False)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of images; without a loss, no counts."""
        return {} if self.loss is None else {"contrastive": len(batch.images.grids)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss of this rank's images and captions against those of all ranks, if there is one."""
        if self.loss is None:
            return {}
        image_BE, text_BE = self.embed_images(batch.images), self.embed_texts(text_of(batch))
        return {"contrastive": contrastive_loss(self.loss, self.scale, image_BE, text_BE, gather=self.training)}

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

    model: Any

    def __init__(self, model: nn.Module, project: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.project = nn.Identity() if project is None else project
        exempt_vectors_from_decay(model)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, whose activations can be recomputed."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Embed texts as :class:`TransformersTowersModule` does, before the normalisation."""
        embedding = self.model.get_input_embeddings()
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

    def __init__(self, norm_of_trunk: nn.Module | None, own_norm: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.project = project
        if norm_of_trunk is None:
            self.norm = own_norm
        else:  # transformers counts the norm as a part of its image model, the trunk: it is no second part of this one
            object.__setattr__(self, "norm", norm_of_trunk)

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
        exempt_vectors_from_decay(head)

    def forward(self, features: Features) -> Tensor:
        """Embed images as :class:`TransformersTowersModule` does, before the normalisation."""
        embedded_BE: Tensor = self.head(features.tokens_BND)
        return embedded_BE


def _norm_of(trunk: nn.Module) -> nn.Module | None:
    """Return the norm of the class token in a trunk that is CLIP's image model."""
    norm = getattr(getattr(trunk, "model", None), "post_layernorm", None)
    return norm if isinstance(norm, nn.Module) else None


def _around_the_trunk(config: str) -> Any:
    """Build the model of transformers; its image tower has no blocks, because the trunk is the image tower."""
    from transformers import AutoModel

    settings = config_of(config)
    settings.vision_config.num_hidden_layers = 0
    build: Any = AutoModel.from_config
    return build(settings)
