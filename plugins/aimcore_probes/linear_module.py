"""The module of the linear probe."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from aimcore_probes.grid import GridModule


class LinearGrid(GridModule):
    """G linear classifiers behind one BatchNorm, whose statistics do not depend on the classifiers.

    All start from the same weights: Xavier uniform, and no bias.
    """

    def __init__(self, width: int, num_classes: int, num_settings: int, generator: Generator) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        start_CD = nn.init.xavier_uniform_(torch.empty(num_classes, width), generator=generator)
        self.weight_GCD = nn.Parameter(start_CD.repeat(num_settings, 1, 1))
        self.bias_GC = nn.Parameter(torch.zeros(num_settings, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """``[b, G, C]`` logits for features ``[b, D]``."""
        weight, bias = self.weight_GCD.flatten(0, 1), self.bias_GC.flatten()
        return functional.linear(self.norm(features), weight, bias).reshape(-1, *self.bias_GC.shape)
