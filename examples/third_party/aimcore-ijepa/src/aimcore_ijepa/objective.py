"""I-JEPA: the tokens that a teacher gives of the whole image, from a part of it.

Shape suffixes: B batch of images or of target blocks, T target blocks per image, N patches in raster order, K patches
of the context, L patches of a target block, S scored positions, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from aimcore import (
    Attention,
    Batch,
    Capability,
    Loss,
    Objective,
    ObjectiveModule,
    PatchGrid,
    Problem,
    Reading,
    TrunkModule,
    at_least,
    component,
    within,
)
from aimcore.contracts import limits
from aimcore.contracts.images import reorder
from aimcore.contracts.randomness import EVALUATION_SEED
from aimcore.modeling.layers import frozen_copy, move_average
from aimcore_ijepa.masks import BlockMasks, Blocks, Flags
from aimcore_ijepa.predictor import Predictor

Distance = Literal["l2", "smooth_l1"]


@component("i_jepa", paper="arXiv:2301.08243, section 3")
class IJEPA(Objective):
    """Four blocks of an image in the teacher's representation, each predicted from one context block without them.

    The trunk reads the context alone. The teacher (the paper's target encoder), an average of the trunk's weights that
    starts as a copy of it, reads the whole image; its tokens, normalised over their values, are the targets. A narrow
    predictor is given the context's tokens and mask tokens in the places of one target block.
    """

    blocks: Blocks = Blocks()
    predictor_width: int = 384
    predictor_depth: int = 6
    """Blocks of the predictor: 6 for ViT-B, 12 for larger trunks in the paper."""
    predictor_heads: int = 12
    momentum: float = 0.996
    """Of the teacher at the first update; it rises linearly and would be 1 after the last."""
    distance: Distance = "l2"
    """Between prediction and target, the mean over their values. The paper has the squared L2 distance (equation 1);
    the authors' code has the smooth L1 distance, with threshold 1."""

    @property
    def requires(self) -> frozenset[Capability]:
        """A trunk that can read a part of the patches."""
        return frozenset[Capability]({"subset"})

    def problems(self) -> Iterable[Problem]:
        """Sizes must be positive and fit each other."""
        yield from at_least("predictor_width", self.predictor_width, 1, limits.WIDTH)
        yield from at_least("predictor_depth", self.predictor_depth, 1, limits.DEPTH)
        yield from at_least("predictor_heads", self.predictor_heads, 1, limits.HEADS)
        yield from within("momentum", self.momentum, 0, 1)
        for divisor, why in ((4, "sine-cosine positions need it"), (self.predictor_heads, "predictor_heads divide it")):
            if divisor > 0 and self.predictor_width % divisor:
                yield Problem("predictor_width", f"must be a multiple of {divisor} ({why}), got {self.predictor_width}")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """A context must be left."""
        return self.blocks.problems_with(grid)

    def build(self, trunk: TrunkModule) -> IJEPAModule:
        """The trunk with a teacher and a predictor."""
        return IJEPAModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny one, for small images."""
        return (cls(blocks=Blocks(min_context=1), predictor_width=8, predictor_depth=1, predictor_heads=2),)


class IJEPAModule(ObjectiveModule):
    """The module of :class:`IJEPA`."""

    def __init__(self, config: IJEPA, trunk: TrunkModule) -> None:
        super().__init__()
        self.config, self.trunk = config, trunk
        self.teacher = frozen_copy(trunk)
        self.predictor = Predictor(trunk.width, config.predictor_width, config.predictor_depth, config.predictor_heads)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Patches of all target blocks; a patch in two blocks counts twice, as it is predicted twice."""
        return {"i_jepa": int(self.masks(batch).target_BTN.sum())}

    def masks(self, batch: Batch) -> BlockMasks:
        """The blocks of this batch; in evaluation they do not depend on the run's seed."""
        seed = batch.seed if self.training else EVALUATION_SEED
        return self.config.blocks.draw(batch.images, batch.sample_numbers_B.numpy(), seed)

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The mean distance over all patches of target blocks."""
        images, masks = batch.images, self.masks(batch)
        device, number = images.patches_BNF.device, self.config.blocks.num_targets
        # [B, K]: the patches of each context; [B * T, L]: those of each target block.
        context_BK, valid_BK = (each.to(device) for each in listed(masks.context_BN))
        target_BL, valid_BL = (
            each.to(device) for each in listed(masks.target_BTN.reshape(-1, masks.target_BTN.shape[2]))
        )
        context = self.trunk(images, Reading(attention=Attention(valid_BN=valid_BK), order_BN=context_BK))
        with torch.no_grad():
            teacher_BND = self.teacher(images, Reading()).tokens_BND
            teacher_BND = functional.layer_norm(teacher_BND, teacher_BND.shape[-1:])
        # The batch of images becomes a batch of target blocks: image 0's blocks, then image 1's.
        positions_BL2 = reorder(images.positions_BN2.repeat_interleave(number, 0), target_BL)
        wanted_BLD = reorder(teacher_BND.repeat_interleave(number, 0), target_BL)
        given = (each.repeat_interleave(number, 0) for each in (context.tokens_BND, context.positions_BN2, valid_BK))
        predicted_BLD = self.predictor(*given, positions_BL2, valid_BL)
        loss_BL = distance(predicted_BLD, wanted_BLD, self.config.distance)
        loss_BS = torch.where(valid_BL, loss_BL, torch.nan).reshape(len(images.grids), -1)
        count = torch.tensor(int(masks.target_BTN.sum()), device=device)
        patch_BS = target_BL.reshape(loss_BS.shape)
        return {"i_jepa": Loss(loss_BS.nansum(), count, per_position_BN=loss_BS, scored_patch_BN=patch_BS)}

    def after_step(self, step: int, num_steps: int) -> None:
        """Move the teacher towards the trunk."""
        move_average(self.teacher, self.trunk, momentum_at(step, num_steps, self.config.momentum))


def listed(flags_BN: Flags) -> tuple[Tensor, Tensor]:
    """The indices where each row is True, ``[B, K]``, and which of them are valid: rows are filled up to the longest.

    >>> listed(np.array([[False, True, True], [True, False, False]]))
    (tensor([[1, 2],
            [0, 1]]), tensor([[ True,  True],
            [ True, False]]))
    """
    count_B = flags_BN.sum(1)
    index_BK = np.argsort(~flags_BN, axis=1, kind="stable")[:, : count_B.max()]
    return torch.from_numpy(index_BK), torch.from_numpy(np.arange(index_BK.shape[1]) < count_B[:, None])


def distance(predicted_BND: Tensor, wanted_BND: Tensor, kind: Distance) -> Tensor:
    """``[B, N]``: the mean over the values of each token, in float32 or better.

    >>> distance(torch.tensor([[[3.0, 0.5]]]), torch.zeros(1, 1, 2), "l2")  # (9 + 0.25) / 2
    tensor([[4.6250]])
    >>> distance(torch.tensor([[[3.0, 0.5]]]), torch.zeros(1, 1, 2), "smooth_l1")  # (2.5 + 0.125) / 2
    tensor([[1.3125]])
    """
    dtype = torch.promote_types(predicted_BND.dtype, torch.float32)
    function = functional.mse_loss if kind == "l2" else functional.smooth_l1_loss
    return function(predicted_BND.to(dtype), wanted_BND.to(dtype), reduction="none").mean(-1)


def momentum_at(step: int, num_steps: int, first: float) -> float:
    """The teacher's momentum after update ``step``, which counts from 1: linear from ``first`` towards 1.

    >>> [round(momentum_at(step, 4, 0.996), 3) for step in (1, 2, 3, 4)]
    [0.996, 0.997, 0.998, 0.999]
    """
    return first + (1 - first) * (step - 1) / num_steps
