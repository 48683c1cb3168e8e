"""Contrastive training on images and captions: CLIP, its sigmoid variant, and (with a frozen trunk) LiT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import (
    Attention,
    Batch,
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
)
from aimcore.contracts import limits
from aimcore_objectives.gathering import from_all
from aimcore_objectives.joint_space import JointSpace
from aimcore_objectives.logit_scale import LogitScale
from aimcore_objectives.steps import at_least_float32
from aimcore_objectives.texts import text_of
from aimcore_objectives.towers import ImageTowerModule, TextTower, TextTowerModule
from aimcore_tokenizers import Bytes


@component("contrastive", paper="arXiv:2103.00020; arXiv:2303.15343 (sigmoid); arXiv:2411.14402, Tables 5 and 9b")
class Contrastive(JointSpace):
    """Make embeddings of matching images and captions similar, and others dissimilar, over the global batch.

    ``softmax`` is CLIP's loss: the mean of the cross-entropies of the caption of each image and of the image of each
    caption. Its temperature starts at 0.07, and the inverse stays in [1, 100]; at a bound, only gradients that lead
    back pass. ``sigmoid`` (SigLIP's, arXiv:2303.15343) classifies every pair by itself, with an initial scale of 10,
    an initial bias of -10 and no bound on the scale; as a trained objective it is an extra of this project.
    Similarities and logits are float32 at every precision. Gradients pass through the embeddings of all ranks. LiT is
    this objective with a frozen trunk.

    The towers are those of AIMv2's released LiT model. The CLIP configuration that AIMv2's authors released embeds an
    image by a class token and one bias-free linear layer instead; here a class token of the trunk is not read.

    Validation contrasts the images of one process's batch with each other, so its loss depends on the batch's size.
    """

    text_tower: TextTower = TextTower()
    tokenizer: TextTokenizer = Bytes()
    context_length: int = 77
    embedding_width: int = 768
    num_pool_heads: int = 8
    """Heads of the attention pool over image tokens."""
    loss: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def is_separable(self) -> bool:
        """False: the loss compares samples, so micro-batches would change it."""
        return False

    def problems(self) -> Iterable[Problem]:
        """Yield problems of sizes."""
        yield from at_least("context_length", self.context_length, 1, limits.PATCHES)
        yield from at_least("embedding_width", self.embedding_width, 1, limits.WIDTH)
        yield from at_least("num_pool_heads", self.num_pool_heads, 1, limits.HEADS)

    def build(self, trunk: TrunkModule) -> ContrastiveModule:
        """Build the trunk with both towers."""
        return ContrastiveModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return objectives with both losses and tiny towers."""
        tower = TextTower(width=16, depth=1, num_heads=2)
        return (
            cls(text_tower=tower, context_length=6, embedding_width=8, num_pool_heads=2),
            cls(text_tower=tower, context_length=6, embedding_width=8, num_pool_heads=2, loss="sigmoid"),
        )


class ContrastiveModule(ObjectiveModule):
    """The module of :class:`Contrastive`."""

    def __init__(self, config: Contrastive, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.image_tower = ImageTowerModule(trunk.width, config.num_pool_heads, config.embedding_width)
        self.text_tower = TextTowerModule(
            config.text_tower, config.tokenizer, config.context_length, config.embedding_width
        )
        softmax = config.loss == "softmax"
        self.scale = (
            LogitScale(math.log(1 / 0.07), bounded=True) if softmax else LogitScale(math.log(10), -10.0, bounded=False)
        )

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of images."""
        return {"contrastive": len(batch.images.grids)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss of this rank's images and captions against those of all ranks."""
        image_BE, text_BE = self.embed_images(batch.images), self.embed_texts(text_of(batch))
        loss = _softmax_loss if self.config.loss == "softmax" else _sigmoid_loss
        total = loss(self.scale, image_BE, text_BE, gather=self.training)
        return {"contrastive": Loss(total, torch.tensor(len(image_BE), device=total.device))}

    def embed_images(self, images: Images) -> Tensor:
        """Return ``[B, E]`` of unit length, with bidirectional attention as in training."""
        attention = Attention(valid_BN=images.valid_BN if images.is_padded else None)
        embedded_BE: Tensor = self.image_tower(self.trunk(images, Reading(attention=attention)))
        return embedded_BE

    def embed_texts(self, text: Text) -> Tensor:
        """Return ``[B, E]`` of unit length."""
        embedded_BE: Tensor = self.text_tower(text)
        return embedded_BE


def _softmax_loss(scale: LogitScale, image_BE: Tensor, text_BE: Tensor, *, gather: bool) -> Tensor:
    """Half the cross-entropy of each image's caption and of each caption's image, summed over this rank's."""
    (all_images_AE, first), (all_texts_AE, _) = from_all(image_BE, gather), from_all(text_BE, gather)
    own_B = first + torch.arange(len(image_BE), device=image_BE.device)
    # Both directions in one call, so that the scale has a single gradient, which is checked against its bounds.
    queries_2BE, keys_2AE = torch.stack([image_BE, text_BE]), torch.stack([all_texts_AE, all_images_AE])
    logits_2BA = scale(_similarities(queries_2BE, keys_2AE), gather=gather)
    return functional.cross_entropy(logits_2BA.flatten(0, 1), own_B.repeat(2), reduction="sum") / 2


def _sigmoid_loss(scale: LogitScale, image_BE: Tensor, text_BE: Tensor, *, gather: bool) -> Tensor:
    """The log-loss of every pair of this rank's images and all captions."""
    all_texts_AE, first = from_all(text_BE, gather)
    logits_BA = scale(_similarities(image_BE, all_texts_AE), gather=gather)
    sign_BA = torch.full_like(logits_BA, -1)
    sign_BA[torch.arange(len(image_BE)), first + torch.arange(len(image_BE))] = 1
    return -functional.logsigmoid(sign_BA * logits_BA).sum()


def _similarities(queries_BE: Tensor, keys_AE: Tensor) -> Tensor:
    """``[..., B, A]``, at least float32: autocast would round them to bfloat16, and the scale enlarges the error."""
    with _without_autocast(queries_BE.device.type):
        return at_least_float32(queries_BE) @ at_least_float32(keys_AE).mT


def _without_autocast(device_type: str) -> AbstractContextManager[None]:
    # The meta device, on which a dry run counts, has no autocast, and disabling it there is an error.
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
