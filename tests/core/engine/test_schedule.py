"""Learning rates computed by hand."""

import math

import pytest

from aimcore import Schedule
from aimcore.engine.schedule import learning_rate


def rates(schedule: Schedule, num_steps: int, peak_lr: float = 1.0) -> list[float]:
    return [learning_rate(step, peak_lr=peak_lr, schedule=schedule, num_steps=num_steps) for step in range(num_steps)]


def test_warm_up_is_linear_from_the_first_rate_to_the_peak() -> None:
    assert rates(Schedule(warmup_steps=4, warmup_lr=0.2), 12)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_cosine_is_half_way_at_the_middle_of_what_follows_the_warm_up() -> None:
    assert rates(Schedule(warmup_steps=4, warmup_lr=0.2), 12)[8] == pytest.approx(0.5)
    assert rates(Schedule(warmup_steps=4, final_lr=0.4), 12)[8] == pytest.approx(0.7)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert rates(Schedule(), 4, peak_lr=3.0) == pytest.approx(
        [3.0, 1.5 * (1 + math.sqrt(0.5)), 1.5, 1.5 * (1 - math.sqrt(0.5))]
    )


def test_the_last_step_is_just_above_the_final_rate() -> None:
    last = rates(Schedule(final_lr=0.1), 1000)[-1]
    assert 0.1 < last < 0.1 + 1e-5
