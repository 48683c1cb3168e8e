"""Contrastive training on images and captions: CLIP, its sigmoid variant, and (with a frozen trunk) LiT."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from torch import Tensor

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
from aimcore_objectives.contrastive_loss import ContrastiveKind, contrastive_loss, initial_scale
from aimcore_objectives.joint_space import JointSpace
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
    loss: ContrastiveKind = "softmax"

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
        self.scale = initial_scale(config.loss, bounded=config.loss == "softmax")

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of images."""
        return {"contrastive": len(batch.images.grids)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss of this rank's images and captions against those of all ranks."""
        image_BE, text_BE = self.embed_images(batch.images), self.embed_texts(text_of(batch))
        return {"contrastive": contrastive_loss(self.config.loss, self.scale, image_BE, text_BE, gather=self.training)}

    def embed_images(self, images: Images) -> Tensor:
        """Return ``[B, E]`` of unit length, with bidirectional attention as in training."""
        attention = Attention(valid_BN=images.valid_BN if images.is_padded else None)
        embedded_BE: Tensor = self.image_tower(self.trunk(images, Reading(attention=attention)))
        return embedded_BE

    def embed_texts(self, text: Text) -> Tensor:
        """Return ``[B, E]`` of unit length."""
        embedded_BE: Tensor = self.text_tower(text)
        return embedded_BE
