"""The module of the linear probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore_probes.grid import GridModule


class LinearGrid(GridModule):
    """G linear classifiers after one shared BatchNorm, whose statistics do not depend on the classifiers.

    All weights start at zero. The papers do not say where. The problem is convex, so a random start would only add
    noise, which takes much of a short training at a small rate to unlearn.
    """

    def __init__(self, width: int, num_classes: int, num_settings: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        self.weight_GCD = nn.Parameter(torch.zeros(num_settings, num_classes, width))
        self.bias_GC = nn.Parameter(torch.zeros(num_settings, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for features ``[b, D]``."""
        weight, bias = self.weight_GCD.flatten(0, 1), self.bias_GC.reshape(-1, 1)
        # The softmax of the loss over few classes is several times faster if samples are the last axis in memory.
        logits = torch.addmm(bias, weight, self.norm(features).T)
        return logits.reshape(*self.bias_GC.shape, -1).permute(2, 0, 1)


class FlatLinearGrid(LinearGrid):
    """The same for tokens, which are flattened."""

    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for tokens ``[b, N, D]``."""
        return super().forward(features.flatten(1))
