"""The learning rate of every step, as a pure function."""

import math
from typing import assert_never

from aimcore.experiment import Schedule


def learning_rate(step: int, *, peak_lr: float, schedule: Schedule, num_steps: int) -> float:
    """The rate that the update of ``step`` uses.

    Warm-up: with W warm-up steps, steps 0 to W rise linearly from ``warmup_lr`` (exactly, at step 0) to ``peak_lr``
    (exactly, at step W). Decay: from step W on, in the schedule's shape, to step H, where H is ``decay_steps`` or else
    ``num_steps`` (arXiv:2401.08541, Table 10: a cosine). Cooldown: with C cooldown steps, step ``num_steps - C`` has
    the rate that the shape has there, from which it falls linearly (arXiv:2411.14402, section 3.1).

    The rates of the end belong to the step after the last one: H would have the final rate, and ``num_steps`` the
    cooldown's. The last step is ``num_steps - 1``, so that no update is spent on a rate of zero.

    Args:
        step: number of updates done before this one.
        peak_lr: the highest rate.
        schedule: warm-up, shape and cooldown.
        num_steps: updates in the whole run.

    >>> schedule = Schedule(warmup_steps=2, warmup_lr=0.0, decay="linear")
    >>> [learning_rate(step, peak_lr=1.0, schedule=schedule, num_steps=6) for step in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    start = num_steps - schedule.cooldown_steps
    if step <= start or not schedule.cooldown_steps:
        return _rate(step, peak_lr, schedule, num_steps)
    reached = _rate(start, peak_lr, schedule, num_steps)
    return reached + (schedule.cooldown_lr - reached) * (step - start) / schedule.cooldown_steps


def _rate(step: int, peak_lr: float, schedule: Schedule, num_steps: int) -> float:
    """The rate without a cooldown."""
    warmup = schedule.warmup_steps
    if step < warmup:
        return schedule.warmup_lr + (peak_lr - schedule.warmup_lr) * step / warmup
    end = num_steps if schedule.decay_steps is None else schedule.decay_steps
    share = _share(schedule, (step - warmup) / (end - warmup))
    return schedule.final_lr + (peak_lr - schedule.final_lr) * share


def _share(schedule: Schedule, progress: float) -> float:
    """How much of the way from the final rate up to the peak is left."""
    match schedule.decay:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "half_cosine":
            return 0.5 * (1 + math.cos(math.pi / 2 * progress))
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0
    assert_never(schedule.decay)
