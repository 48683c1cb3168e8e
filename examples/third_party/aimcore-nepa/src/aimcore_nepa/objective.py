"""Next-embedding prediction: each patch's embedding from the patches before it.

Shape suffixes: B batch, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import (
    CAUSAL,
    Batch,
    Capability,
    Loss,
    Objective,
    ObjectiveModule,
    PatchGrid,
    Reading,
    TrunkModule,
    component,
)


@component("next_embedding", paper="arXiv:2512.16922")
class NextEmbedding(Objective):
    """NEPA: the output at step t predicts the embedding of patch t + 1, by negative cosine similarity.

    The trunk reads in raster order with causal attention. Its own patch embeddings, without positions and without
    gradient, are the targets, and its own outputs, after the final norm, are the predictions: there is no head, no
    decoder and no second network. As in the authors' code, except that no begin token predicts the first patch.
    """

    @property
    def requires(self) -> frozenset[Capability]:
        """Causal attention, and embeddings of single patches."""
        return frozenset[Capability]({"causal", "embeddings"})

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """A single patch has no next one."""
        if grid.num_patches < 2:
            yield "nothing is left to predict: there is one patch, and no patch before it"

    def build(self, trunk: TrunkModule) -> NextEmbeddingModule:
        """The trunk alone."""
        return NextEmbeddingModule(trunk)


class NextEmbeddingModule(ObjectiveModule):
    """The module of :class:`NextEmbedding`: it has no weights but the trunk's."""

    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__()
        self.trunk = trunk

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """All patches but the first of each image."""
        return {"next_embedding": sum(length - 1 for length in batch.images.lengths)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The mean over all patches but the first of each image; between -1 (every direction is right) and 1."""
        images = batch.images
        predicted_BND = self.trunk(images, Reading(attention=CAUSAL)).tokens_BND
        target_BND = self.trunk.embed_patches(images).detach()  # or all embeddings would become one and the same
        loss_BN = next_embedding_loss(predicted_BND, target_BND)
        loss_BN = torch.where(images.valid_BN, loss_BN, torch.nan)
        count = torch.tensor(self.counts(batch)["next_embedding"], device=loss_BN.device)
        return {"next_embedding": Loss(loss_BN.nansum(), count, per_position_BN=loss_BN)}


def next_embedding_loss(predicted_BND: Tensor, target_BND: Tensor) -> Tensor:
    """``[B, N]``: minus the cosine between each target and the prediction one step before; NaN at the first step.

    >>> predicted = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> target = torch.tensor([[[5.0, 5.0], [3.0, 4.0]]])
    >>> next_embedding_loss(predicted, target)  # the angle between (1, 0) and (3, 4)
    tensor([[    nan, -0.6000]])
    """
    dtype = torch.promote_types(predicted_BND.dtype, torch.float32)  # also where the trunk computes in bfloat16
    cosine_BN = functional.cosine_similarity(predicted_BND[:, :-1].to(dtype), target_BND[:, 1:].to(dtype), dim=-1)
    return functional.pad(-cosine_BN, (1, 0), value=torch.nan)
