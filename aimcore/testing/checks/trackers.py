"""Checks of trackers: they accept everything that a run logs, and do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aimcore.contracts.trackers import Tracker
from aimcore.testing.checks import Check
from aimcore.testing.requirements import explained, require

_METRICS = {"loss/next_patch": 0.5, "lr": 1e-3, "gradient_norm": 1.25}


def _recipe() -> dict[str, Any]:
    return {"schema_version": 1, "experiment": {"name": "conformance", "seed": 0, "probes": []}}


def check_a_run_may_end_in_any_way(tracker: Tracker) -> None:
    """A run is opened, logged and closed as finished, interrupted or failed; also before its first step."""
    for status in ("finished", "interrupted", "failed"):
        for num_steps in (0, 2):
            with _folder() as folder, explained(f"a run of {num_steps} steps that is {status} raises"):
                run = tracker.open(folder, _recipe(), 0)
                for step in range(num_steps):
                    run.log(step, _METRICS)
                    run.sync()
                run.close(status)


def check_a_resumed_run_goes_on(tracker: Tracker) -> None:
    """A run of the same folder is opened again at the step it is resumed from, and ends well."""
    with _folder() as folder, explained("a run that is resumed raises"):
        for resume_step in (0, 2):
            run = tracker.open(folder, _recipe(), resume_step)
            for step in range(resume_step, 4):
                run.log(step, _METRICS)
            run.close("interrupted" if resume_step == 0 else "finished")


def check_metrics_may_come_and_go(tracker: Tracker) -> None:
    """Steps are logged with gaps, and with names that were not there before: a loss may have no targets at first."""
    with _folder() as folder, explained("a step with other metrics than the first raises"):
        run = tracker.open(folder, _recipe(), 0)
        run.log(0, _METRICS)
        run.log(10, {"lr": 1e-3, "loss/captions": 2.0})
        run.close("finished")


def check_any_step_may_be_looked_at(tracker: Tracker) -> None:
    """``after_step`` is called for steps that are not logged too, and returns whether to stop: True or False."""
    with _folder() as folder, explained("after_step raises at a step that was not logged"):
        run = tracker.open(folder, _recipe(), 0)
        for step in range(3):
            if step == 1:
                run.log(step, _METRICS)
            stops: Any = run.after_step(step, _METRICS)
            require(isinstance(stops, bool), f"after_step must return True or False, got {stops!r}")
        run.close("interrupted")


def check_what_it_is_given_stays_as_it_was(tracker: Tracker) -> None:
    """Recipe and metrics are not changed: other trackers get the same."""
    recipe, metrics = _recipe(), dict(_METRICS)
    with _folder() as folder:
        run = tracker.open(folder, recipe, 0)
        run.log(0, metrics)
        run.after_step(0, metrics)
        run.close("finished")
    require(recipe == _recipe() and metrics == _METRICS, "the recipe or the metrics were changed: work on a copy")


CHECKS: tuple[Check, ...] = (
    check_a_run_may_end_in_any_way,
    check_a_resumed_run_goes_on,
    check_metrics_may_come_and_go,
    check_any_step_may_be_looked_at,
    check_what_it_is_given_stays_as_it_was,
)


@contextmanager
def _folder() -> Iterator[str]:
    """A run's folder, which exists, with a name of its own."""
    with TemporaryDirectory(prefix="aimcore-conformance-") as parent:
        path = Path(parent) / Path(parent).name
        path.mkdir()
        yield str(path)
