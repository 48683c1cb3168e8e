"""The published optimisers and schedules, number by number."""

import pytest

from aimcore import Schedule
from aimcore_optimizers import AdamW
from aimcore_trunks import (
    AIM_BATCH_SIZE,
    AIM_NUM_STEPS,
    AIMV2_BATCH_SIZE,
    AIMV2_NUM_STEPS,
    aim_optimizer,
    aim_schedule,
    aimv2_cooldown,
    aimv2_long_schedule,
    aimv2_optimizer,
    aimv2_schedule,
)


@pytest.mark.parametrize(("size", "peak_lr"), [("L", 1e-3), ("H", 8e-4), ("1B", 8e-4), ("3B", 4e-4)])
def test_the_optimisers_of_aimv2_are_those_of_its_table_a1(size: str, peak_lr: float) -> None:
    assert aimv2_optimizer(size) == AdamW(  # type: ignore[arg-type]
        peak_lr=peak_lr, weight_decay=1e-4, decay="decoupled", betas=(0.9, 0.95), eps=1e-8, gradient_clipping=1.0
    )


def test_the_schedule_of_aimv2_is_that_of_its_table_a1() -> None:
    expected = Schedule(warmup_steps=12_500, warmup_lr=1e-6, decay="cosine", final_lr=1e-5)
    assert aimv2_schedule() == expected
    assert (AIMV2_BATCH_SIZE, AIMV2_NUM_STEPS) == (8192, 1_500_000)


def test_twelve_billion_samples_are_what_the_paper_speaks_of() -> None:
    assert pytest.approx(12e9, rel=0.03) == AIMV2_BATCH_SIZE * AIMV2_NUM_STEPS


def test_optimiser_and_schedule_of_aim_are_those_of_its_table_10() -> None:
    assert aim_optimizer() == AdamW(
        peak_lr=1e-3, weight_decay=0.05, decay="coupled", betas=(0.9, 0.95), eps=1e-8, gradient_clipping=1.0
    )
    assert aim_schedule() == Schedule(warmup_steps=31_250, warmup_lr=1e-6, decay="cosine", final_lr=0.0)
    assert (AIM_BATCH_SIZE, AIM_NUM_STEPS) == (4096, 1_250_000)


def test_a_cooldown_takes_a_fifth_of_the_steps_before_it_and_goes_to_a_millionth() -> None:
    num_steps, schedule = aimv2_cooldown(400_000, long_schedule=aimv2_long_schedule(), long_steps=610_000)
    assert (num_steps, schedule.cooldown_steps, schedule.cooldown_lr) == (480_000, 80_000, 1e-6)
    assert (schedule.decay, schedule.decay_steps, schedule.final_lr) == ("half_cosine", 610_000, 0.0)


def test_no_size_is_made_up() -> None:
    with pytest.raises(KeyError, match="7B"):
        aimv2_optimizer("7B")  # type: ignore[arg-type]
