"""Learning rates computed by hand."""

import math

import pytest
from core.engine.toys import experiment

from aimcore import InvalidValue, Schedule
from aimcore_optimizers import AdamW


def rates(schedule: Schedule, num_steps: int, peak_lr: float = 1.0) -> list[float]:
    return [schedule.rate(step, num_steps=num_steps, peak_lr=peak_lr) for step in range(num_steps)]


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


def test_a_half_cosine_to_zero_ends_at_half_the_peak() -> None:
    found = rates(Schedule(warmup_steps=2, warmup_lr=0.5, decay="half_cosine"), 6)
    # Steps 2 to 6 go through 0, 22.5, 45, 67.5 and 90 degrees.
    expected = [0.5 * (1 + math.cos(math.radians(degrees))) for degrees in (0, 22.5, 45, 67.5)]
    assert found == pytest.approx([0.5, 0.75, *expected])
    assert Schedule(decay="half_cosine").rate(6, num_steps=6, peak_lr=1.0) == pytest.approx(0.5)


def test_a_half_cosine_to_more_than_zero_ends_half_way_to_it() -> None:
    schedule = Schedule(decay="half_cosine", final_lr=0.2)
    assert schedule.rate(8, num_steps=8, peak_lr=1.0) == pytest.approx(0.6)


def test_a_linear_decay_falls_by_as_much_in_every_step() -> None:
    schedule = Schedule(warmup_steps=1, warmup_lr=0.5, decay="linear", final_lr=0.2)
    assert rates(schedule, 5) == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4])


def test_a_constant_one_stays_at_the_peak_whatever_the_final_rate() -> None:
    schedule = Schedule(warmup_steps=2, warmup_lr=0.0, decay="constant", final_lr=0.1)
    assert rates(schedule, 5, peak_lr=4.0) == [0.0, 2.0, 4.0, 4.0, 4.0]


def test_a_cooldown_leaves_the_shape_where_it_is_and_would_reach_its_rate_one_step_after_the_last() -> None:
    schedule = Schedule(decay="constant", cooldown_steps=4, cooldown_lr=0.2)
    assert rates(schedule, 6) == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.6, 0.4])
    assert schedule.rate(6, num_steps=6, peak_lr=1.0) == pytest.approx(0.2)


def test_a_cooldown_begins_at_the_rate_of_the_longer_schedule_it_leaves() -> None:
    whole = rates(Schedule(warmup_steps=2, warmup_lr=0.5, decay="linear"), 10)
    branch = Schedule(warmup_steps=2, warmup_lr=0.5, decay="linear", decay_steps=10, cooldown_steps=2, cooldown_lr=0.25)
    assert rates(branch, 8)[:7] == whole[:7]
    # At step 6 half of the decay from 1 to 0 is done; two steps lead on to 0.25.
    assert rates(branch, 8)[6:] == pytest.approx([0.5, 0.375])


def test_a_cooldown_may_begin_where_the_longer_schedule_ends() -> None:
    branch = Schedule(decay="half_cosine", decay_steps=4, cooldown_steps=2, cooldown_lr=0.1)
    assert rates(branch, 6)[4:] == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (Schedule(warmup_steps=6), r"schedule\.warmup_steps: must be below num_steps \(6\)"),
        (
            Schedule(warmup_steps=2, cooldown_steps=4),
            r"schedule\.cooldown_steps: must be below num_steps - warmup_steps \(4\), .*; got 4",
        ),
        (Schedule(decay_steps=5), r"schedule\.decay_steps: must reach .* the end of the run, step 6: .*; got 5"),
        (Schedule(decay_steps=3, cooldown_steps=2), r"schedule\.decay_steps: must reach the cooldown .*, step 4"),
        (Schedule(warmup_steps=1, warmup_lr=2.0), r"schedule\.warmup_lr: must not be above optimizer\.peak_lr \(1\)"),
        (Schedule(final_lr=2.0), r"schedule\.final_lr: must not be above optimizer\.peak_lr \(1\), got 2"),
        (Schedule(cooldown_steps=1, cooldown_lr=2.0), r"schedule\.cooldown_lr: must not be above optimizer\.peak_lr"),
        (
            Schedule(warmup_steps=1, decay="linear", cooldown_steps=1, cooldown_lr=0.5),
            r"schedule\.cooldown_lr: must not be above the rate at step 5, 0\.2, where the cooldown begins; got 0\.5",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_refused(schedule: Schedule, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        experiment(schedule=schedule, optimizer=AdamW(peak_lr=1.0), num_steps=6)


def test_all_problems_of_a_schedule_are_reported_at_once() -> None:
    schedule = Schedule(warmup_steps=3, warmup_lr=2.0, cooldown_steps=5, cooldown_lr=3.0)
    with pytest.raises(InvalidValue) as caught:
        experiment(schedule=schedule, optimizer=AdamW(peak_lr=1.0), num_steps=6)
    paths = [path for path, _ in caught.value.problems]
    assert paths == ["schedule.cooldown_steps", "schedule.warmup_lr", "schedule.cooldown_lr"]


def test_what_has_no_effect_is_no_problem() -> None:
    unused = Schedule(decay="constant", warmup_lr=2.0, final_lr=2.0, cooldown_lr=2.0, decay_steps=2)
    made = experiment(schedule=unused, optimizer=AdamW(peak_lr=1.0), num_steps=6)
    assert rates(made.schedule, made.num_steps) == [1.0] * 6
