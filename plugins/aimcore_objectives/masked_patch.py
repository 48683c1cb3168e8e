"""Masked image modelling: the baseline that AIM is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore import (
    Batch,
    Capability,
    Features,
    Head,
    PatchGrid,
    Problem,
    Reading,
    Target,
    TrunkModule,
    component,
    within,
)
from aimcore.contracts.randomness import EVALUATION_SEED
from aimcore_heads import LinearHead, MLPHead
from aimcore_objectives.captioner import bidirectional
from aimcore_objectives.masks import block_masks, num_masked, random_masks
from aimcore_objectives.patch_prediction import PatchObjective, PatchPredictionModule
from aimcore_objectives.steps import Steps
from aimcore_targets import NormalizedPixels


@component("masked_patch", paper="arXiv:2401.08541, Table 5")
class MaskedPatch(PatchObjective):
    """Predict the patches that a learned token replaces in the input, with bidirectional attention.

    Target, head and loss are those of ``next_patch``, so that the two differ in what they predict from what. The loss
    is the sum over all masked patches divided by their number. Masks are drawn from (seed, sample number) in training;
    in validation each image has one fixed mask, the same in every run with the same ``ratio`` and ``mask``. With a
    target of codes, this is BEiT's objective (arXiv:2106.08254).
    """

    target: Target = NormalizedPixels()
    head: Head = MLPHead()
    ratio: float = 0.75
    """Share of the patches that are masked, rounded to whole patches; Table 5 has 0.5 and 0.75."""
    mask: Literal["random", "blocks"] = "random"
    """Single patches, drawn uniformly (Table 5), or blocks as in BEiT. Blocks are an extra of this project: the paper
    does not use them."""

    @property
    def requires(self) -> frozenset[Capability]:
        """A trunk with a mask token."""
        return frozenset[Capability]({"mask"})

    def problems(self) -> Iterable[Problem]:
        """Yield a problem if the ratio masks nothing or everything."""
        yield from within("ratio", self.ratio, 0.01, 0.99)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if an image has a single patch."""
        if grid.num_patches < 2:
            yield "an image of a single patch has nothing to predict it from"

    def build(self, trunk: TrunkModule) -> MaskedPatchModule:
        """Build the trunk with this objective's head."""
        return MaskedPatchModule(self, trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return small objectives with both kinds of masks."""
        return cls(head=MLPHead(width=16, depth=2)), cls(head=LinearHead(), ratio=0.5, mask="blocks")


class MaskedPatchModule(PatchPredictionModule):
    """The module of :class:`MaskedPatch`."""

    loss_name = "masked_patch"

    def __init__(self, config: MaskedPatch, trunk: TrunkModule) -> None:
        super().__init__(trunk, config.head, config.target)
        self.config = config

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of masked patches."""
        return {self.loss_name: int(num_masked(batch.images, self.config.ratio).sum())}

    def masks(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return ``[B, N]`` on the CPU, in raster order: True for masked patches. Evaluation uses fixed masks."""
        draw = random_masks if self.config.mask == "random" else block_masks
        seed = batch.seed if self.training else EVALUATION_SEED
        return draw(batch.images, self.config.ratio, batch.sample_numbers_B.numpy(), seed)

    def _read(self, batch: Batch) -> tuple[Features, Tensor, Steps]:
        images, masked_BN = batch.images, self.masks(batch)
        device = images.patches_BNF.device
        raster_BN = torch.arange(masked_BN.shape[1], device=device).expand(len(masked_BN), -1)
        masked_M = torch.from_numpy(np.flatnonzero(masked_BN)).to(device)
        steps = Steps(raster_BN, bidirectional(images), masked_M)
        reading = Reading(attention=steps.attention, masked_BN=torch.from_numpy(masked_BN).to(device))
        return self.trunk(images, reading), masked_M, steps
