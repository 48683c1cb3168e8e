"""A run ends when its time is spent, and gets the same time again when it is resumed."""

from __future__ import annotations

import pytest

from aimcore import InvalidValue
from aimcore_trackers import TimeBudget
from aimcore_trackers import time_budget as module


def test_it_stops_when_the_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    run = TimeBudget(minutes=2).open("folder", {}, 0)
    assert run.after_step(0, {}) is False
    clock[0] = 1119.9
    assert run.after_step(1, {}) is False
    clock[0] = 1120.0
    assert run.after_step(2, {}) is True
    resumed = TimeBudget(minutes=2).open("folder", {}, 3)
    assert resumed.after_step(3, {}) is False


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(InvalidValue, match="minutes: must be positive"):
        TimeBudget(minutes=0)
