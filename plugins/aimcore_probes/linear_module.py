"""The module of the linear probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore_probes.grid import GridModule


class LinearGrid(GridModule):
    """G linear classifiers behind one BatchNorm, whose statistics do not depend on the classifiers.

    All start from zero. The papers do not say where; the problem is convex, so that a random start would only be
    noise to unlearn, much of a short training at a small rate.
    """

    def __init__(self, width: int, num_classes: int, num_settings: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        self.weight_GCD = nn.Parameter(torch.zeros(num_settings, num_classes, width))
        self.bias_GC = nn.Parameter(torch.zeros(num_settings, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for features ``[b, D]``."""
        weight, bias = self.weight_GCD.flatten(0, 1), self.bias_GC.reshape(-1, 1)
        # Samples last in memory: the loss's softmax over so few classes is several times faster that way.
        logits = torch.addmm(bias, weight, self.norm(features).T)
        return logits.reshape(*self.bias_GC.shape, -1).permute(2, 0, 1)
