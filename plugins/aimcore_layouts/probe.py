"""The attention probe that AIM's authors released, as a module with one set of weights.

Shape suffixes: B images, N patches, D width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore_objectives.attention_pool import pooled_by_attention


class AttentionProbe(nn.Module):
    """Tokens ``[B, N, D]`` to logits ``[B, K]``: BatchNorm, attention of one learned query, a linear classifier.

    Source: the released probes of arXiv:2401.08541. BatchNorm without affine (eps 1e-6) is not in its equation 4; no
    layer has a bias. In evaluation mode BatchNorm uses the stored statistics, so no image depends on others.
    """

    def __init__(self, width: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.classifier = nn.Linear(width, num_classes, bias=False)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return logits ``[B, K]``."""
        tokens_BND = self.norm(tokens_BND.transpose(1, 2)).transpose(1, 2)
        valid_BN = torch.ones(tokens_BND.shape[:2], dtype=torch.bool, device=tokens_BND.device)
        pooled_BD = pooled_by_attention(
            self.query, self.key(tokens_BND), self.value(tokens_BND), valid_BN, self.num_heads
        )
        logits_BK: Tensor = self.classifier(pooled_BD)
        return logits_BK
