"""Input and scored patches in reading order: shared by the objectives that predict patches.

Shape suffixes: B batch, N steps of the reading order, M scored steps, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore import Attention, Batch, Images, Loss, Ordering, PatchGrid, PredictedPatches, TargetModule
from aimcore.contracts.images import reorder
from aimcore.contracts.randomness import EVALUATION_SEED, keyed_integers

Prefix = Literal["uniform"] | int | None
"""Prefix length: uniform in [1, K - 1] per image (arXiv:2401.08541, section 4.2), a fixed number, or none (causal)."""


@attrs.frozen(eq=False)
class Steps:
    """How a batch is read, and the flat steps ``b * N + t`` whose patches are scored.

    In next-patch prediction, the output at step t - 1 predicts the patch of step t; in masked image modelling, the
    output at a masked patch predicts it. The steps are computed on the CPU, so no device waits.
    """

    order_BN: Tensor
    attention: Attention
    target_M: Tensor


def validation_prefix(prefix: Prefix) -> int | None:
    """Return one patch if training draws the prefix, the fixed length, or None without a prefix."""
    return 1 if prefix == "uniform" else prefix


def nothing_left(grid: PatchGrid, prefix: Prefix) -> Iterable[str]:
    """Yield a problem if no patch of ``grid`` is after the prefix."""
    first = prefix if isinstance(prefix, int) else 1
    if grid.num_patches <= first:
        yield f"nothing is left to predict: {grid.num_patches} patches, of which {first} are given"


def first_targets(batch: Batch, prefix: Prefix, *, training: bool) -> npt.NDArray[np.int64]:
    """Return ``[B]``, the step of each image's first scored patch: its prefix length, or 1 without a prefix.

    If an image has fewer patches than the prefix, all of them are in the prefix.
    """
    lengths_B = _lengths(batch.images)
    if prefix == "uniform" and training:
        return keyed_integers(batch.seed, "prefix", batch.sample_numbers_B.numpy(), 1, lengths_B)
    return np.minimum(validation_prefix(prefix) or 1, lengths_B)


def num_scored(batch: Batch, prefix: Prefix, *, training: bool) -> int:
    """Return the number of scored patches: those after the prefixes."""
    return int((_lengths(batch.images) - first_targets(batch, prefix, training=training)).sum())


def steps_of(batch: Batch, ordering: Ordering, prefix: Prefix, *, training: bool) -> Steps:
    """Return how to read ``batch`` with causal or prefix attention, and the scored steps."""
    images = batch.images
    device = images.patches_BNF.device
    first_B = first_targets(batch, prefix, training=training)
    order_BN = orders_of(ordering, batch, training=training)
    attention = Attention(
        causal=True,
        prefix_length_B=None if prefix is None else torch.from_numpy(first_B).to(device),
        valid_BN=reorder(images.valid_BN, order_BN) if images.is_padded else None,
    )
    steps_N = np.arange(images.patches_BNF.shape[1])
    scored_BN = (steps_N >= first_B[:, None]) & (steps_N < _lengths(images)[:, None])
    return Steps(order_BN, attention, torch.from_numpy(np.flatnonzero(scored_BN)).to(device))


def orders_of(ordering: Ordering, batch: Batch, *, training: bool) -> Tensor:
    """Return ``[B, N]``, the order of each image. In evaluation a sample has the same order in every run."""
    return ordering.orders(batch.images, batch.sample_numbers_B, batch.seed if training else EVALUATION_SEED)


def patch_losses(target: TargetModule, batch: Batch, steps: Steps) -> Callable[[Tensor, slice], Tensor]:
    """Return the function from predictions ``[m, K]`` of some of the scored steps to their losses ``[m]``."""
    values_M = reorder(target(batch), steps.order_BN).flatten(0, 1)[steps.target_M]

    def losses(predictions_mK: Tensor, rows: slice) -> Tensor:
        return target.loss(at_least_float32(predictions_mK), values_M[rows])

    return losses


def patch_loss(
    target: TargetModule, batch: Batch, steps: Steps, predictions_MK: Tensor, *, weight: float = 1.0
) -> Loss:
    """Return the loss of ``predictions_MK`` against the target's values at the scored steps (:func:`scored_loss`)."""
    loss_M = patch_losses(target, batch, steps)(predictions_MK, slice(None))
    return scored_loss(target, steps, loss_M, weight=weight)


def scored_loss(target: TargetModule, steps: Steps, loss_M: Tensor, *, weight: float = 1.0) -> Loss:
    """Return the loss of all scored steps, from those of each.

    It is averaged over all scored patches of the global batch. The authors' training code averages over the patches of
    each process first, which gives patches a larger weight if prefixes are longer.
    """
    per_position_BN = spread(loss_M, steps.target_M, steps.order_BN.shape, torch.nan)
    patch_BN = steps.order_BN if target.target.sees == "image" else None
    return Loss(loss_M.sum(), torch.tensor(len(loss_M), device=loss_M.device), weight, per_position_BN, patch_BN)


def drawn_patches(target: TargetModule, batch: Batch, steps: Steps, predictions_MK: Tensor) -> PredictedPatches:
    """Return predictions at the scored steps as pixels, in raster order."""
    shape, back_BN = steps.order_BN.shape, steps.order_BN.argsort(dim=1)
    predictions_BNK = reorder(spread(predictions_MK, steps.target_M, shape, 0.0), back_BN)
    scored_M = torch.ones_like(steps.target_M, dtype=torch.bool)
    scored_BN = reorder(spread(scored_M, steps.target_M, shape, False), back_BN)
    drawn_BNF = target.drawn(predictions_BNK.to(batch.images.patches_BNF.dtype), scored_BN, batch)
    return PredictedPatches(drawn_BNF, scored_BN)


def at_least_float32(predictions: Tensor) -> Tensor:
    """Convert predictions to float32, in which losses are computed at every precision; float64 stays."""
    return predictions if predictions.dtype == torch.float64 else predictions.float()


def spread(values_M: Tensor, where_M: Tensor, shape: torch.Size, fill: float) -> Tensor:
    """Write values ``[M, ...]`` at flat positions into ``[B, N, ...]``, with ``fill`` elsewhere."""
    flat = values_M.new_full((shape.numel(), *values_M.shape[1:]), fill)
    return flat.index_copy(0, where_M, values_M).reshape(*shape, *values_M.shape[1:])


def _lengths(images: Images) -> npt.NDArray[np.int64]:
    return np.array(images.lengths, dtype=np.int64)
