"""Training settings: the learning-rate schedule and the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, assert_never

from aimcore.contracts import limits
from aimcore.contracts.component import Checked, at_least, settings
from aimcore.contracts.errors import Problem
from aimcore.io.locations import location_problems


@settings
class Schedule(Checked):
    """The learning rate of every step: a linear warm-up, a decay, and an optional linear cooldown at the end.

    A new shape is one more value of ``decay`` and its case in :meth:`_share`.

    >>> schedule = Schedule(warmup_steps=2, warmup_lr=0.0, decay="linear")
    >>> [schedule.rate(step, num_steps=6, peak_lr=1.0) for step in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """

    warmup_steps: int = 0
    warmup_lr: float = 1e-6
    """Rate at the first warm-up step."""
    decay: Literal["cosine", "half_cosine", "linear", "constant"] = "cosine"
    """Shape after warm-up. A half-cosine is the first half of a cosine to ``final_lr``: with ``final_lr=0`` it ends at
    half the peak (arXiv:2411.14402, section 3.1). A constant rate does not use ``final_lr``."""
    final_lr: float = 0.0
    decay_steps: int | None = None
    """Length of warm-up and decay together, in steps; None means the whole run. A run may end earlier, such as a
    cooldown from the middle of a longer run's schedule."""
    cooldown_steps: int = 0
    """Number of final steps in which the rate falls linearly to ``cooldown_lr``, from the rate reached before them."""
    cooldown_lr: float = 1e-6

    def rate(self, step: int, *, num_steps: int, peak_lr: float) -> float:
        """Return the learning rate of the update that follows ``step`` updates.

        Warm-up: with W warm-up steps, the rate rises linearly from ``warmup_lr`` at step 0 to ``peak_lr`` at step W,
        both exactly. Decay: from step W to step H the rate has the schedule's shape, where H is ``decay_steps`` or else
        ``num_steps`` (arXiv:2401.08541, Table 10: a cosine). Cooldown: with C cooldown steps, the rate falls linearly
        from the one that the shape has at step ``num_steps - C`` (arXiv:2411.14402, section 3.1).

        The final rates belong to the step after the last one: ``final_lr`` to step H, ``cooldown_lr`` to step
        ``num_steps``. The last update is that of step ``num_steps - 1``, so no update has a rate of zero.

        Args:
            step: number of updates done before this one.
            num_steps: updates in the whole run.
            peak_lr: the highest rate.
        """
        start = num_steps - self.cooldown_steps
        if step <= start or not self.cooldown_steps:
            return self.shape_rate(step, num_steps=num_steps, peak_lr=peak_lr)
        reached = self.shape_rate(start, num_steps=num_steps, peak_lr=peak_lr)
        return reached + (self.cooldown_lr - reached) * (step - start) / self.cooldown_steps

    def shape_rate(self, step: int, *, num_steps: int, peak_lr: float) -> float:
        """Return the rate without a cooldown: warm-up and decay only."""
        warmup = self.warmup_steps
        if step < warmup:
            return self.warmup_lr + (peak_lr - self.warmup_lr) * step / warmup
        share = self._share((step - warmup) / (self.horizon(num_steps) - warmup))
        return self.final_lr + (peak_lr - self.final_lr) * share

    def horizon(self, num_steps: int) -> int:
        """Return the step at which the decay ends: ``decay_steps``, or by default the end of the run."""
        return num_steps if self.decay_steps is None else self.decay_steps

    def _share(self, progress: float) -> float:
        """Return the remaining fraction between the final rate (0) and the peak (1), at ``progress`` in [0, 1]."""
        match self.decay:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * progress))
            case "half_cosine":
                return 0.5 * (1 + math.cos(math.pi / 2 * progress))
            case "linear":
                return 1 - progress
            case "constant":
                return 1.0
        assert_never(self.decay)

    def problems(self) -> Iterable[Problem]:
        """Yield steps and rates that are negative, and a decay that ends before the warm-up."""
        for steps in ("warmup_steps", "cooldown_steps"):
            yield from at_least(steps, getattr(self, steps), 0, limits.STEPS)
        for rate in ("warmup_lr", "final_lr", "cooldown_lr"):
            yield from at_least(rate, getattr(self, rate), 0, limits.RATE)
        if self.decay_steps is not None:
            if self.decay_steps <= self.warmup_steps:
                known = f"warmup_steps ({self.warmup_steps})"
                yield Problem("decay_steps", f"must be above {known}, got {self.decay_steps}")
            yield from at_least("decay_steps", self.decay_steps, 1, limits.STEPS)

    def problems_in(self, num_steps: int, peak_lr: float) -> Iterable[Problem]:
        """Yield why this schedule does not fit a run of ``num_steps``: too few steps, or a rate that would rise."""
        cut = list(self._problems_of_length(num_steps))
        yield from cut
        too_high = list(self._above_the_peak(peak_lr))
        yield from too_high
        if self.cooldown_steps and num_steps > 0 and not cut and not too_high:
            start = num_steps - self.cooldown_steps
            reached = self.rate(start, num_steps=num_steps, peak_lr=peak_lr)
            if self.cooldown_lr > reached:
                yield Problem(
                    "cooldown_lr",
                    f"must not be above the rate at step {start}, {reached:g}, where the cooldown begins; got "
                    f"{self.cooldown_lr:g}",
                )

    def _problems_of_length(self, num_steps: int) -> Iterable[Problem]:
        before_cooldown, warmup = num_steps - self.cooldown_steps, self.warmup_steps
        if warmup >= num_steps > 0:
            yield Problem("warmup_steps", f"must be below num_steps ({num_steps})")
        elif self.cooldown_steps and before_cooldown <= warmup:
            yield Problem(
                "cooldown_steps",
                f"must be below num_steps - warmup_steps ({num_steps - warmup}), or no step is left for the decay; "
                f"got {self.cooldown_steps}",
            )
        elif self.decay != "constant" and self.decay_steps is not None and self.decay_steps < before_cooldown:
            yield Problem(
                "decay_steps",
                f"must reach the cooldown or the end of the run, step {before_cooldown}: no rate is defined beyond it; "
                f"got {self.decay_steps}",
            )

    def _above_the_peak(self, peak_lr: float) -> Iterable[Problem]:
        rates = {
            "warmup_lr": (self.warmup_steps > 0, self.warmup_lr),
            "final_lr": (self.decay != "constant", self.final_lr),
            "cooldown_lr": (self.cooldown_steps > 0, self.cooldown_lr),
        }
        for name, (is_used, rate) in rates.items():
            if is_used and rate > peak_lr:
                yield Problem(name, f"must not be above optimizer.peak_lr ({peak_lr:g}), got {rate:g}")


Precision = Literal["fp32", "bf16", "autocast"]


@settings
class Engine(Checked):
    """Settings of the training engine (DeepSpeed ZeRO)."""

    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage, which determines what is partitioned over ranks: 0 nothing, 1 optimiser state, 2 also gradients, 3
    also parameters."""
    offload_optimizer: bool = False
    """Whether master weights, optimiser state and update are on the CPU (ZeRO-Offload, arXiv:2101.06840): less memory
    of the GPU, slower steps, the same updates. Requires stage 1 or more. On a CPU it changes nothing."""
    precision: Precision = "autocast"
    """fp32; bf16 (bfloat16 weights with float32 masters); autocast (float32 weights, bfloat16 products)."""
    accumulation_steps: int = 1
    """Micro-batches per step and process. Batch size and update do not depend on it."""
    num_threads: int | None = None
    """CPU threads per process; by default the machine's cores shared among its processes."""
    checkpoint_activations: bool = False
    """Whether the backward pass recomputes the activations of the blocks of trunk, head, decoder and text tower instead
    of holding them (activation checkpointing): less memory, about a third more FLOPs, the same gradients."""

    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep. Those with which other runs of the study begin are kept too."""
    checkpoint_copies: str | None = None
    """Any fsspec URL, such as ``"s3://bucket/runs"``: complete checkpoints are copied to ``<url>/<run>/checkpoints`` in
    the background. A run that is resumed and has no checkpoint of its own begins with the newest copy."""

    def problems(self) -> Iterable[Problem]:
        """Yield the combination of settings that would train silently wrong."""
        yield from at_least("keep_checkpoints", self.keep_checkpoints, 1, limits.STEPS)
        if self.checkpoint_copies is not None:
            yield from location_problems("checkpoint_copies", self.checkpoint_copies)
        yield from at_least("accumulation_steps", self.accumulation_steps, 1, limits.BATCH)
        if self.num_threads is not None:
            yield from at_least("num_threads", self.num_threads, 1, limits.PROCESSES)
        if self.zero_stage == 0 and self.offload_optimizer:
            yield Problem("offload_optimizer", "requires zero_stage 1 or more: stage 0 partitions no optimiser state")
        if self.zero_stage == 0 and self.precision == "bf16":
            yield Problem(
                "precision", "bf16 at ZeRO stage 0 trains silently wrong: use zero_stage 1 or more, or autocast"
            )
