"""The share of time that training waits for data, by a clock that only moves where the test moves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from core.engine.toys import experiment
from loguru import logger

from aimcore.contracts.batches import Batch
from aimcore.engine import TrainingEngine, pace, run_steps, train
from aimcore.engine.pace import Pace
from aimcore.engine.training_engine import StepResult


@pytest.fixture
def warned() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def made_of(*steps: tuple[float, float], num_workers: int = 0) -> Pace:
    """The pace of a first step and of these, given as (seconds, of which waiting)."""
    made = Pace("raster", num_workers)
    made.add(100, 1000.0, 900.0)
    for seconds, waited in steps:
        made.add(100, seconds, waited)
    return made


def test_rate_and_share_are_those_after_the_first_step() -> None:
    assert (Pace("a", 0).patches_per_second, Pace("a", 0).data_share) == (None, None)
    assert (made_of().patches_per_second, made_of().data_share) == (0.1, None)
    made = made_of((4.0, 1.0), (6.0, 0.5))
    assert (made.patches_per_second, made.data_share) == (20.0, 0.15)


def test_waiting_is_reported_from_a_tenth_of_the_time_on(warned: list[str]) -> None:
    made_of(*[(10.0, 1.0)] * 100)
    assert warned == []
    made_of(*[(10.0, 1.25)] * 6)
    assert len(warned) == 1
    assert warned[0].startswith("raster: 12% of the last 60 s of training were spent waiting for data.")


def test_a_run_of_an_hour_is_warned_a_few_times_and_each_window_counts_alone(warned: list[str]) -> None:
    # Windows end after 60, 180, 420, 900, 1,860 s, and in 3,780 s.
    made_of(*[(1.0, 0.5)] * 3600)
    assert len(warned) == 5
    warned.clear()
    # Slow until 60 s, and fast after that.
    made_of(*[(1.0, 0.5)] * 60, *[(1.0, 0.0)] * 3600)
    assert len(warned) == 1


def test_windows_are_at_most_an_hour(warned: list[str]) -> None:
    made_of(*[(100.0, 50.0)] * 720)  # 20 hours
    assert 20 < len(warned) < 27


def test_the_advice_depends_on_the_number_of_cores(warned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "threads_per_process", lambda: 4)
    made_of((60.0, 30.0), num_workers=3)
    made_of((60.0, 30.0), num_workers=4)
    assert "Raise data.num_workers (data.num_workers is 3; cores of this process: 4)" in warned[0]
    assert "More workers will hardly help (data.num_workers is 4; cores of this process: 4)" in warned[1]


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def moving(self, seconds: float, act: Callable[..., Any]) -> Callable[..., Any]:
        def moved(*args: Any, **named: Any) -> Any:
            self.now += seconds
            return act(*args, **named)

        return moved


def test_a_slow_source_is_reported_by_the_run_that_waits_for_it(
    tmp_path: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, load = Clock(), run_steps.train_steps

    def slowly(*args: Any, **named: Any) -> Iterator[list[Batch]]:
        for micro_batches in load(*args, **named):
            clock.now += 30
            yield micro_batches

    step: Callable[..., StepResult] = TrainingEngine.step
    monkeypatch.setattr(run_steps, "time", clock)
    monkeypatch.setattr(run_steps, "train_steps", slowly)
    monkeypatch.setattr(TrainingEngine, "step", clock.moving(10, step))
    made = experiment(num_steps=4)
    result = train(attrs.evolve(made, name="slow"), tmp_path, progress=False)
    result.engine.close()
    assert result.data_share == 0.75  # 30 of 40 s
    assert [line.split(" of training")[0] for line in warned] == ["slow: 75% of the last 80 s"]
