"""I-JEPA's predictor: a narrow ViT from the tokens of the context to those of a target block.

Shape suffixes: B batch of target blocks, K patches of the context, L patches of the block, D width of the trunk,
P width of the predictor. Shorter rows are filled up; ``valid`` is False there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore import Attention
from aimcore.modeling.attention import mask_of
from aimcore.modeling.layers import TransformerBlock, init_linears
from aimcore.modeling.positions import sincos_positions


class Predictor(nn.Module):
    """Tokens of the context, then one mask token per patch of the block, each with its position, through a small ViT.

    As in the authors' code: a linear map to ``width``, fixed sine-cosine positions, pre-norm blocks with biases, a
    norm, a linear map back; the mask token is drawn from N(0, 0.02).
    """

    no_weight_decay = frozenset({"mask_token"})

    def __init__(self, trunk_width: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(trunk_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, 4 * width, attention_bias=True, ffn_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, trunk_width)
        init_linears(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, tokens_BKD: Tensor, positions_BK2: Tensor, valid_BK: Tensor, positions_BL2: Tensor, valid_BL: Tensor
    ) -> Tensor:
        """``[B, L, D]``: the tokens that the teacher gives to the patches at ``positions_BL2``."""
        context_BKP = self.project(tokens_BKD)
        masks_BLP = self.mask_token.to(context_BKP.dtype).expand(*positions_BL2.shape[:2], -1)
        positions_BNP = sincos_positions(torch.cat([positions_BK2, positions_BL2], dim=1), self.width)
        tokens_BNP = torch.cat([context_BKP, masks_BLP], dim=1) + positions_BNP.to(context_BKP.dtype)
        attention = Attention(valid_BN=torch.cat([valid_BK, valid_BL], dim=1))
        mask = mask_of(attention, tokens_BNP.shape[1], tokens_BNP.device)
        for block in self.blocks:
            tokens_BNP = block(tokens_BNP, mask)
        predicted_BLD: Tensor = self.out(self.norm(tokens_BNP[:, positions_BK2.shape[1] :]))
        return predicted_BLD
