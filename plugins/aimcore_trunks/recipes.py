"""How both papers train their named sizes: optimisers and schedules, as published."""

from __future__ import annotations

from aimcore import Optimizer, Schedule
from aimcore_trunks.sizes import AIMv2Size

AIM_BATCH_SIZE = 4096
"""Samples per step (arXiv:2401.08541, Table 10)."""
AIM_NUM_STEPS = 1_250_000
"""Steps (arXiv:2401.08541, Table 10). The text and Table 1 say 1.2M; AIM-0.6B was trained for 500,000 (appendix)."""
AIMV2_BATCH_SIZE = 8192
"""Samples per step (arXiv:2411.14402, Table A1)."""
AIMV2_NUM_STEPS = 1_500_000
"""Steps (arXiv:2411.14402, Table A1): 12 billion samples."""

_AIMV2_PEAK_LR: dict[AIMv2Size, float] = {"L": 1e-3, "H": 8e-4, "1B": 8e-4, "3B": 4e-4}
_WARMUP_LR = 1e-6
"""Where warm-up starts. Neither table says; this is from the authors' released training code."""


def aim_optimizer() -> Optimizer:
    """AdamW as AIM was trained with, all sizes alike (arXiv:2401.08541, Table 10).

    It is torch's, whose decay goes with the rate. Its epsilon, which the table leaves out, is torch's default.
    """
    return Optimizer(peak_lr=1e-3, weight_decay=0.05, decay="coupled", betas=(0.9, 0.95), gradient_clipping=1.0)


def aim_schedule() -> Schedule:
    """Warm-up over 31,250 steps, then a cosine to 0 (arXiv:2401.08541, Table 10), for ``AIM_NUM_STEPS``."""
    return Schedule(warmup_steps=31_250, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=0.0)


def aimv2_optimizer(size: AIMv2Size) -> Optimizer:
    """Fully decoupled AdamW as AIMv2 was trained with (arXiv:2411.14402, Table A1).

    The sizes differ in their peak rates; the decay of 1e-4 at the peak is the same for all, as it does not scale with
    the rate. Its epsilon, which the table leaves out, is torch's default.

    Raises:
        KeyError: no such size.
    """
    return Optimizer(
        peak_lr=_AIMV2_PEAK_LR[size],
        weight_decay=1e-4,
        decay="decoupled",
        betas=(0.9, 0.95),
        gradient_clipping=1.0,
    )


def aimv2_schedule() -> Schedule:
    """Warm-up over 12,500 steps, then a cosine to 1e-5 (arXiv:2411.14402, Table A1), for ``AIMV2_NUM_STEPS``."""
    return Schedule(warmup_steps=12_500, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=1e-5)


def clip_optimizer() -> Optimizer:
    """AdamW as in the CLIP configuration that AIMv2's authors released: decay 0.2, coupled to the rate, no clipping.

    The paper (arXiv:2411.14402, Table 9b) does not say how its CLIP baseline was trained.
    """
    return Optimizer(peak_lr=1e-3, weight_decay=0.2, decay="coupled", betas=(0.9, 0.95), gradient_clipping=None)


def clip_schedule(num_steps: int) -> Schedule:
    """Warm-up over 5 % of the steps, then a cosine to 1e-6, as in the CLIP configuration of AIMv2's authors."""
    return Schedule(warmup_steps=num_steps // 20, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=1e-6)


def aimv2_long_schedule() -> Schedule:
    """A half-cosine that ends at half the peak rate: the runs that are cooled down (arXiv:2411.14402, section 3.1).

    Its warm-up is Table A1's; the section gives none.
    """
    return Schedule(warmup_steps=12_500, warmup_lr=_WARMUP_LR, decay="half_cosine", final_lr=0.0)


def aimv2_cooldown(num_steps_before: int, *, long_schedule: Schedule, long_steps: int) -> tuple[int, Schedule]:
    """A branch of such a run that cools down to 1e-6, for 20 % of the steps before it (arXiv:2411.14402, section 3.1).

    The paper's "20 % of the initial pre-training stage" is read as 20 % of the steps that this branch has done.

    Args:
        num_steps_before: steps of the long run that the branch begins with.
        long_schedule: the long run's schedule.
        long_steps: the long run's number of steps.

    Returns:
        The branch's number of steps, those before it included, and its schedule.
    """
    cooldown_steps = max(1, round(0.2 * num_steps_before))
    schedule = Schedule(
        warmup_steps=long_schedule.warmup_steps,
        warmup_lr=long_schedule.warmup_lr,
        decay=long_schedule.decay,
        final_lr=long_schedule.final_lr,
        decay_steps=long_schedule.decay_steps or long_steps,
        cooldown_steps=cooldown_steps,
        cooldown_lr=1e-6,
    )
    return num_steps_before + cooldown_steps, schedule
