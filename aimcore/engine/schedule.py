"""The learning rate of every step, as a pure function."""

import math

from aimcore.experiment import Schedule


def learning_rate(step: int, *, peak_lr: float, schedule: Schedule, num_steps: int) -> float:
    """The rate that the update of ``step`` uses (arXiv:2401.08541, Table 10: linear warm-up, then cosine).

    With W warm-up steps: steps 0 to W rise linearly from ``warmup_lr`` (exactly, at step 0) to ``peak_lr`` (exactly,
    at step W); steps W to ``num_steps`` follow half a cosine to ``final_lr``. The last step is ``num_steps - 1``, one
    short of the end, so that no update is spent on a final rate of zero.

    Args:
        step: number of updates done before this one.
        peak_lr: the highest rate.
        schedule: warm-up and final rate.
        num_steps: updates in the whole run.
    """
    warmup = schedule.warmup_steps
    if step < warmup:
        return schedule.warmup_lr + (peak_lr - schedule.warmup_lr) * step / warmup
    progress = (step - warmup) / (num_steps - warmup)
    return schedule.final_lr + (peak_lr - schedule.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
