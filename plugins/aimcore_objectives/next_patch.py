"""Next-patch prediction: AIM's objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from aimcore import (
    Ability,
    Attention,
    Batch,
    Head,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    Ordering,
    PatchGrid,
    Problem,
    Reading,
    Target,
    TrunkModule,
    View,
    at_least,
    component,
)
from aimcore.modules import PredictedPatches
from aimcore.patches import order_of, reorder
from aimcore.randomness import keyed_integers
from aimcore_heads import LinearHead, MLPHead
from aimcore_orderings import Raster
from aimcore_targets import NormalizedPixels


@component("next_patch", paper="arXiv:2401.08541, section 4")
class NextPatch(Objective):
    """Each patch is predicted from the patches before it in the ordering; attention is causal or prefix-causal.

    The output at step t - 1 predicts the patch of step t; the first patch, and every patch of the prefix, is never
    predicted. The loss is the sum over all scored patches divided by their number (the authors' code; equation 2
    averages over all K patches of an image). Validation is done with a prefix of one patch, which is plain causal
    attention, or with the fixed prefix: every run with the same ordering is then scored on the same patches.
    """

    ordering: Ordering = Raster()
    target: Target = NormalizedPixels()
    head: Head = MLPHead()
    prefix: Literal["uniform"] | int | None = "uniform"
    """Prefix length: uniform in [1, K - 1] per image (section 4.2), a fixed number of patches, or none (causal)."""

    @property
    def views(self) -> tuple[View, ...]:
        """What its target asks for."""
        return self.target.views

    @property
    def needs(self) -> frozenset[Ability]:
        """Causal or prefix-causal attention, and any order of patches."""
        return frozenset[Ability]({"causal" if self.prefix is None else "prefix", "order"})

    def problems(self) -> Iterable[Problem]:
        """A fixed prefix has at least one patch."""
        if isinstance(self.prefix, int):
            yield from at_least("prefix", self.prefix, 1)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """There must be something to predict behind the prefix."""
        first = self.prefix if isinstance(self.prefix, int) else 1
        if grid.num_patches <= first:
            yield f"nothing is left to predict: {grid.num_patches} patches, of which {first} are given"

    @property
    def validation_prefix(self) -> int | None:
        """One patch where training draws the prefix, the fixed length, or None without a prefix."""
        return 1 if self.prefix == "uniform" else self.prefix

    def build(self, trunk: TrunkModule) -> NextPatchModule:
        """The trunk with this objective's head."""
        return NextPatchModule(self, trunk)

    def reading(self, images: Images) -> Reading:
        """Probes read in this objective's order."""
        return Reading(order_BN=order_of(self.ordering.permutation, images))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Uniform, fixed and no prefix, with small heads."""
        head = MLPHead(width=16, depth=2)
        return cls(head=head), cls(head=LinearHead(), prefix=2), cls(head=head, prefix=None)


class NextPatchModule(ObjectiveModule):
    """The module of :class:`NextPatch`."""

    def __init__(self, config: NextPatch, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = config.head.build(trunk.width, config.target.num_outputs(trunk.patch_size, trunk.num_channels))

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Number of patches behind the prefixes."""
        return {"next_patch": int((_lengths(batch.images) - self._first_targets(batch)).sum())}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The loss over all patches behind the prefixes."""
        target = self.config.target
        predictions_MK, target_M, order_BN = self._predict(batch)
        values_M = reorder(target.values(batch), order_BN).flatten(0, 1)[target_M]
        loss_M = target.loss(predictions_MK.to(values_M.dtype), values_M)
        flat = torch.full((order_BN.numel(),), torch.nan, dtype=loss_M.dtype, device=loss_M.device)
        per_position_BN = flat.index_copy(0, target_M, loss_M).reshape(order_BN.shape)
        num_targets = torch.tensor(len(target_M), device=loss_M.device)
        return {"next_patch": Loss(loss_M.sum(), num_targets, per_position_BN=per_position_BN)}

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Each patch behind the prefix as predicted from the true patches before it, in raster order."""
        predictions_MK, target_M, order_BN = self._predict(batch)
        steps = predictions_MK.new_zeros(order_BN.numel(), predictions_MK.shape[1])
        predictions_BNK = steps.index_copy(0, target_M, predictions_MK).reshape(*order_BN.shape, -1)
        scored_BN = torch.zeros(order_BN.numel(), dtype=torch.bool, device=order_BN.device)
        scored_BN = scored_BN.index_fill(0, target_M, True).reshape(order_BN.shape)
        back_BN = order_BN.argsort(dim=1)
        patches_BNF = batch.images.patches_BNF
        predicted = self.config.target.to_patches(reorder(predictions_BNK, back_BN).to(patches_BNF.dtype), patches_BNF)
        return PredictedPatches(predicted, reorder(scored_BN, back_BN))

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions ``[M, K]`` of the patches at the flat steps ``[M]`` of the reading order ``[B, N]``."""
        images = batch.images
        order_BN = order_of(self.config.ordering.permutation, images)
        attention = self._attention(batch, order_BN)
        features = self.trunk(images, Reading(attention=attention, order_BN=order_BN))
        target_M = _scored(_lengths(images), self._first_targets(batch), images.patches_BNF.shape[1])
        target_M = target_M.to(images.patches_BNF.device)
        # The output at step t - 1 predicts the patch of step t.
        return self.head(features, attention, target_M - 1), target_M, order_BN

    def _first_targets(self, batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """[B] step of each image's first scored patch: its prefix length, or 1 without a prefix."""
        config, lengths_B = self.config, _lengths(batch.images)
        if config.prefix == "uniform" and self.training:
            return keyed_integers(batch.seed, "prefix", batch.sample_numbers_B.numpy(), 1, lengths_B)
        return np.full_like(lengths_B, config.validation_prefix or 1)

    def _attention(self, batch: Batch, order_BN: Tensor) -> Attention:
        images, prefix_length_B = batch.images, None
        if self.config.prefix is not None:
            prefix_length_B = torch.from_numpy(self._first_targets(batch)).to(order_BN.device)
        valid_BN = reorder(images.valid_BN, order_BN) if images.is_padded else None
        return Attention(causal=True, prefix_length_B=prefix_length_B, valid_BN=valid_BN)


def _lengths(images: Images) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([grid.num_patches for grid in images.grids], dtype=np.int64)


def _scored(
    lengths_B: np.ndarray[tuple[int], np.dtype[np.int64]],
    first_B: np.ndarray[tuple[int], np.dtype[np.int64]],
    num_steps: int,
) -> Tensor:
    """[M] flat positions ``b * N + t`` of all steps first <= t < length. Made on the CPU: no device waits."""
    steps_N = np.arange(num_steps)
    return torch.from_numpy(np.flatnonzero((steps_N >= first_B[:, None]) & (steps_N < lengths_B[:, None])))
