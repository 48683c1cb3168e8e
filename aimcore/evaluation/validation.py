"""Validation losses, on images that are never trained on: means, and means per part of the sequence.

Shape suffixes: B batch, N steps of the reading order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.results import Loss
from aimcore.engine.distributed import add_over_ranks, largest_over_ranks
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.shared_batches import in_step
from aimcore.experiment import Precision


class NonFiniteLoss(AimcoreError):
    """A validation loss is NaN or infinite."""

    def __init__(self, name: str, value: float, num_targets: int) -> None:
        super().__init__(
            f"validation loss {name!r} adds up to {value} over {num_targets} targets: training has diverged "
            "(try a lower optimizer.peak_lr) or the images hold values that are not finite"
        )


def loss_by_chunk(position_sum_N: Tensor, count_N: Tensor, num_chunks: int) -> tuple[float | None, ...]:
    """Return the mean loss in each of ``num_chunks`` equal parts of the sequence (arXiv:2401.08541, Figure 7).

    Chunk i contains the steps from ``round(i * N / num_chunks)`` to ``round((i + 1) * N / num_chunks)`` (exclusive),
    where halves round to the even neighbour, as in Python's ``round``. Patches that are never predicted have count 0
    and are left out; a chunk without a predicted patch (or without a patch) is None.

    Args:
        position_sum_N: sum of the losses of the targets at each step of the reading order.
        count_N: number of those targets.
        num_chunks: number of parts.
    """
    length = len(position_sum_N)
    edges = [round(i * length / num_chunks) for i in range(num_chunks + 1)]
    return tuple(
        _mean(float(position_sum_N[low:high].sum()), int(count_N[low:high].sum())) for low, high in pairwise(edges)
    )


@attrs.frozen(eq=False)
class ValidationLoss:
    """One loss over all validation batches of all processes."""

    sum: float
    num_targets: int
    weight: float
    position_sum_N: Tensor | None = None
    """Sum per step of the reading order (float64, up to the longest sequence); None if the loss has no positions."""
    position_count_N: Tensor | None = None
    """Number of targets per step of the reading order."""

    @property
    def mean(self) -> float | None:
        """Mean over targets; None if there was no target."""
        return _mean(self.sum, self.num_targets)

    def by_chunk(self, num_chunks: int) -> tuple[float | None, ...] | None:
        """Return the mean per part of the sequence, see :func:`loss_by_chunk`; None if the loss has no positions."""
        if self.position_sum_N is None or self.position_count_N is None:
            return None
        return loss_by_chunk(self.position_sum_N, self.position_count_N, num_chunks)

    def by_position(self) -> tuple[float | None, ...] | None:
        """Return the mean per step of the reading order; None at steps where nothing is predicted."""
        return None if self.position_sum_N is None else self.by_chunk(len(self.position_sum_N))


@attrs.frozen(eq=False)
class Validation:
    """The validation losses of a module."""

    losses: Mapping[str, ValidationLoss]
    num_samples: int

    @property
    def total(self) -> float | None:
        """Weighted sum of the means; None if one of the losses had no target."""
        parts = [None if loss.mean is None else loss.weight * loss.mean for loss in self.losses.values()]
        return sum(part for part in parts if part is not None) if None not in parts else None

    def record(self, num_chunks: int) -> dict[str, Any]:
        """Return all losses as plain values for a JSON file; undefined means are null."""
        return {
            "num_samples": self.num_samples,
            "losses": {
                name: {
                    "mean": loss.mean,
                    "num_targets": loss.num_targets,
                    "weight": loss.weight,
                    "by_chunk": loss.by_chunk(num_chunks),
                    "by_position": loss.by_position(),
                }
                for name, loss in self.losses.items()
            },
        }


def validate(module: ObjectiveModule, batches: Iterable[Batch], *, precision: Precision = "fp32") -> Validation:
    """Run ``module`` on ``batches`` without training it, and add up its losses over batches and processes.

    Sums and counts are added before the division, so the result depends on neither the batches nor the processes. The
    module runs in evaluation mode; its modes are restored.

    Args:
        module: the objective with its trunk; batches are moved to its device.
        batches: this process's share of the validation images.
        precision: anything but ``"fp32"`` runs under bfloat16 autocast.

    Raises:
        NonFiniteLoss: a loss is NaN or infinite.
        TooFewBatches: with several processes, some have no batch.
    """
    tallies: dict[str, _Tally] = {}
    num_samples = 0
    with eval_mode(module, precision) as device:
        for batch, counts in in_step(batches):
            losses = module(batch.to(device))
            for name, loss in losses.items():
                tallies.setdefault(name, _Tally()).add(loss, counts)
            num_samples += len(batch.sample_numbers_B) if counts else 0
        summaries = {name: tally.over_ranks(name) for name, tally in tallies.items()}
        total = add_over_ranks(torch.tensor([num_samples]))
    return Validation(losses=summaries, num_samples=int(total))


class _Tally:
    """Accumulates a loss over this process's batches, in float64 on the CPU."""

    def __init__(self) -> None:
        self.sum_and_count = torch.zeros(2, dtype=torch.float64)
        self.weight = 1.0
        self.positions_2N: Tensor | None = None

    def add(self, loss: Loss, counts: bool) -> None:
        """Add a batch; a batch that does not count only supplies the names of the losses."""
        self.weight = loss.weight
        share = float(counts)
        if counts:
            self.sum_and_count += torch.stack([loss.sum.double(), loss.num_targets.double()]).cpu()
        if loss.per_position_BN is not None:
            values_BN = loss.per_position_BN.double().cpu()
            scored_BN = ~values_BN.isnan()
            new_2N = share * torch.stack([values_BN.nan_to_num(nan=0.0).sum(0), scored_BN.double().sum(0)])
            self.positions_2N = new_2N if self.positions_2N is None else _add_padded(self.positions_2N, new_2N)

    def over_ranks(self, name: str) -> ValidationLoss:
        """Return the total over all processes."""
        total, count = add_over_ranks(self.sum_and_count).tolist()
        if not math.isfinite(total):
            raise NonFiniteLoss(name, total, int(count))
        if self.positions_2N is None:
            return ValidationLoss(sum=total, num_targets=int(count), weight=self.weight)
        longest = largest_over_ranks(self.positions_2N.shape[1])
        padded_2N = _add_padded(self.positions_2N, torch.zeros(2, longest, dtype=torch.float64))
        sum_N, count_N = add_over_ranks(padded_2N)
        return ValidationLoss(
            sum=total, num_targets=int(count), weight=self.weight, position_sum_N=sum_N, position_count_N=count_N.long()
        )


def _add_padded(one_2N: Tensor, other_2N: Tensor) -> Tensor:
    """Add two tables of different length; sequences of native-resolution images differ in length."""
    longest = max(one_2N.shape[1], other_2N.shape[1])
    padded = (torch.nn.functional.pad(table, (0, longest - table.shape[1])) for table in (one_2N, other_2N))
    return next(padded) + next(padded)


def _mean(total: float, count: int) -> float | None:
    # Not 0 / 0: nothing was scored, so there is no mean.
    return total / count if count else None
