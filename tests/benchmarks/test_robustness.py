"""Damaged input is read as it should be, or refused: a few cases of each kind, and the judge itself.

Many more: ``python benchmarks/robustness.py --help``.
"""

import random
import sys
import time
from pathlib import Path

import pytest

from aimcore import AimcoreError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = {
    "images": 400, "shards": 120, "zarr": 60, "safetensors": 150, "tokenizers": 100, "recipes": 60, "manifests": 200,
    "studies": 40,
}  # fmt: skip
BOUNDS = {"seconds": 60.0, "megabytes": 1000.0}


@pytest.fixture(scope="module")
def robustness():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import robustness

        yield robustness
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_kind_is_tried(robustness):
    assert set(CASES) == set(robustness.SUBJECTS)


@pytest.mark.parametrize("kind", CASES)
def test_damaged_input_is_read_right_or_refused(robustness, tmp_path, kind):
    outcomes = list(robustness.run(robustness.SUBJECTS[kind](tmp_path), range(CASES[kind]), seed=0, **BOUNDS))
    assert [outcome for outcome in outcomes if outcome.kind == "fault"] == []
    # It did try: some of the damage was noticed.
    assert any(outcome.kind == "refused" for outcome in outcomes)


class Pretended:
    """A subject whose cases do what the test says."""

    name = "pretended"

    def __init__(self, act):
        self.act = act

    def try_case(self, draw: random.Random) -> None:
        self.act()


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "bounds", "kind", "about"),
    [
        (lambda: None, {}, "fine", ""),
        (raising(AimcoreError("no")), {}, "refused", "AimcoreError: no"),
        (raising(ValueError("no\nmore")), {}, "fault", "ValueError: no"),
        (raising(SystemExit(3)), {}, "fault", "SystemExit: 3"),
        (lambda: time.sleep(10), {"seconds": 0.05}, "fault", "TookTooLong: more than 0.05 s"),
    ],
)
def test_outcomes_are_distinguished(robustness, act, bounds, kind, about):
    (outcome,) = robustness.run(Pretended(act), [7], seed=0, **(BOUNDS | bounds))
    assert (outcome.number, outcome.kind, outcome.about) == (7, kind, about)


def test_memory_beyond_the_bound_is_a_fault_of_the_case_that_took_it(robustness, monkeypatch):
    peaks = iter([500.0, 510.0, 900.0, 910.0])
    monkeypatch.setattr(robustness, "_peak_megabytes", lambda: next(peaks))
    outcomes = list(robustness.run(Pretended(lambda: None), range(3), seed=0, seconds=60.0, megabytes=50.0))
    assert [outcome.kind for outcome in outcomes] == ["fine", "fault", "fine"]
    assert outcomes[1].about.startswith("Memory: 390 MB")


def test_a_case_is_the_same_whichever_others_are_tried(robustness):
    drawn: list[float] = []

    class Drawing(Pretended):
        def try_case(self, draw):
            drawn.append(draw.random())

    for numbers in ([0, 1, 2], [2], [1]):
        list(robustness.run(Drawing(None), numbers, seed=3, **BOUNDS))
    assert drawn[3:] == [drawn[2], drawn[1]]
