"""AIM's objective with lightly's modules, where lightly is installed (pip install lightly)."""

from __future__ import annotations

import importlib.util

import torch
from plain_models import patch_loss
from torch import Tensor, nn

from aimcore import Batch, Experiment
from aimcore.contracts.images import unpatchify
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_objectives.steps import first_targets
from aimcore_trunks import ViT


class LightlyAIM(nn.Module):
    """lightly's causal ViT and prediction head, of the experiment's sizes, with weights of their own."""

    def __init__(self, trunk: ViT, head: MLPHead, image_size: int) -> None:
        super().__init__()
        from lightly.models.modules import AIMPredictionHead, MaskedCausalVisionTransformer

        self.trunk = MaskedCausalVisionTransformer(
            img_size=image_size,
            patch_size=trunk.patch_size,
            in_chans=trunk.num_channels,
            embed_dim=trunk.width,
            depth=trunk.depth,
            num_heads=trunk.num_heads,
            qk_norm=False,
            class_token=False,
            global_pool="",
            no_embed_class=True,
            num_classes=0,
        )
        values = trunk.patch_size**2 * trunk.num_channels
        self.head = AIMPredictionHead(trunk.width, values, head.width, head.depth, head.ffn_ratio)

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss; lightly pools nothing and predicts every patch."""
        images = batch.images
        prefix_B = torch.from_numpy(first_targets(batch, "uniform", training=True))
        mask_BN = torch.arange(images.patches_BNF.shape[1]) >= prefix_B[:, None]
        pixels_BCHW = unpatchify(images.patches_BNF, images.grid, images.patch_size)
        features_BND = self.trunk.forward_features(pixels_BCHW, mask=mask_BN)
        return patch_loss(batch, self.head(features_BND), prefix_B)


def lightly_form(experiment: Experiment) -> LightlyAIM | None:
    """Return lightly's form of an AIM experiment; None without lightly, or for another objective."""
    trunk, objective = experiment.trunk, experiment.objective
    if importlib.util.find_spec("lightly") is None or not isinstance(objective, NextPatch):
        return None
    assert isinstance(trunk, ViT)
    assert isinstance(objective.head, MLPHead)
    return LightlyAIM(trunk, objective.head, experiment.data.image_size)
