"""The optimisers and schedules with which both papers train their named sizes."""

from __future__ import annotations

from aimcore import Schedule
from aimcore_optimizers import AdamW
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
"""Rate at the start of the warm-up. Neither table gives it; this value is from the authors' released training code."""


def aim_optimizer() -> AdamW:
    """Return AIM's AdamW, the same for all sizes (arXiv:2401.08541, Table 10).

    The decay is multiplied by the learning rate, as in torch. The table does not give epsilon: it is torch's default.
    """
    return AdamW(peak_lr=1e-3, weight_decay=0.05, decay="coupled", betas=(0.9, 0.95), gradient_clipping=1.0)


def aim_schedule() -> Schedule:
    """Return AIM's schedule: warm-up over 31,250 steps, then a cosine to 0 (arXiv:2401.08541, Table 10).

    It is meant for ``AIM_NUM_STEPS`` steps.
    """
    return Schedule(warmup_steps=31_250, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=0.0)


def aimv2_optimizer(size: AIMv2Size) -> AdamW:
    """Return AIMv2's fully decoupled AdamW (arXiv:2411.14402, Table A1).

    The peak rate depends on the size. The decay at the peak is 1e-4 for all sizes, because it does not scale with the
    peak rate. The table does not give epsilon: it is torch's default.

    Raises:
        KeyError: the size is unknown.
    """
    return AdamW(
        peak_lr=_AIMV2_PEAK_LR[size],
        weight_decay=1e-4,
        decay="decoupled",
        betas=(0.9, 0.95),
        gradient_clipping=1.0,
    )


def aimv2_schedule() -> Schedule:
    """Return AIMv2's schedule: warm-up over 12,500 steps, then a cosine to 1e-5 (arXiv:2411.14402, Table A1).

    It is meant for ``AIMV2_NUM_STEPS`` steps.
    """
    return Schedule(warmup_steps=12_500, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=1e-5)


def clip_optimizer() -> AdamW:
    """Return the AdamW of the CLIP configuration that AIMv2's authors released: coupled decay 0.2, no clipping.

    The paper (arXiv:2411.14402, Table 9b) does not say how its CLIP baseline was trained.
    """
    return AdamW(peak_lr=1e-3, weight_decay=0.2, decay="coupled", betas=(0.9, 0.95), gradient_clipping=None)


def clip_schedule(num_steps: int) -> Schedule:
    """Return the schedule of that configuration: warm-up over 5 % of the steps, then a cosine to 1e-6."""
    return Schedule(warmup_steps=num_steps // 20, warmup_lr=_WARMUP_LR, decay="cosine", final_lr=1e-6)


def aimv2_long_schedule() -> Schedule:
    """Return the schedule of AIMv2's long runs, from which cooldowns branch (arXiv:2411.14402, section 3.1).

    It is a half-cosine that ends at half the peak rate. Its warm-up is that of Table A1; the section gives none.
    """
    return Schedule(warmup_steps=12_500, warmup_lr=_WARMUP_LR, decay="half_cosine", final_lr=0.0)


def aimv2_cooldown(num_steps_before: int, *, long_schedule: Schedule, long_steps: int) -> tuple[int, Schedule]:
    """Return the length and schedule of a branch that cools a long run down to 1e-6 (arXiv:2411.14402, section 3.1).

    The cooldown takes 20 % of the steps before it: this is how we read the paper's "20 % of the initial pre-training
    stage".

    Args:
        num_steps_before: steps of the long run before the branch.
        long_schedule: schedule of the long run.
        long_steps: number of steps of the long run.

    Returns:
        The number of steps of the branch, including those before it, and its schedule.
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
