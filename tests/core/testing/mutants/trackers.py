"""Trackers, each broken in one way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimcore import Tracker, TrackerRun, component
from aimcore.testing.checks import trackers as checks


class Lines(TrackerRun):
    def __init__(self, path: Path, mode: str) -> None:
        self.file = path.open(mode)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **metrics}) + "\n")

    def close(self, status: str) -> None:
        self.file.close()


@component("sound")
class Sound(Tracker):
    """Writes lines into the run's folder."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Lines(Path(folder) / "lines.jsonl", "a" if resume_step else "w")


class Summing(Lines):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.last_step = step
        super().log(step, metrics)

    def close(self, status: str) -> None:
        self.file.write(f"{status} at {self.last_step}")
        super().close(status)


@component("mutant")
class Expectant(Sound):
    """Cannot be closed before the first step."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Summing(Path(folder) / "lines.jsonl", "a" if resume_step else "w")


@component("mutant")
class Fresh(Sound):
    """Insists on a new file."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Lines(Path(folder) / "lines.jsonl", "x")


class Table(Lines):
    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self.columns: list[str] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.columns = self.columns or list(metrics)
        self.file.write(",".join(str(metrics[column]) for column in self.columns) + "\n")


@component("mutant")
class Tabular(Sound):
    """Expects the metrics of the first step at every step."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Table(Path(folder) / "lines.csv", "a" if resume_step else "w")


@component("mutant")
class Meddling(Sound):
    """Writes into the recipe it is given."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        recipe["experiment"]["tracked"] = True
        return super().open(folder, recipe, resume_step)


class Target(Lines):
    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        return metrics["loss/next_patch"] < 0.1


@component("sound_stopper")
class Stopper(Sound):
    """Stops where a loss is low enough."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Target(Path(folder) / "lines.jsonl", "a" if resume_step else "w")


class Vague(Lines):
    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        return metrics["loss/next_patch"]  # type: ignore[return-value]


@component("mutant")
class Vaguely(Sound):
    """Answers with a number whether to stop."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Vague(Path(folder) / "lines.jsonl", "a" if resume_step else "w")


class Remembering(Lines):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        super().log(step, metrics)
        self.rates = {step: metrics["lr"]}

    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        return self.rates[step] < 1e-6


@component("mutant")
class Reminded(Sound):
    """Expects that every step that it looks at was logged."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return Remembering(Path(folder) / "lines.jsonl", "a" if resume_step else "w")


SOUND = (Sound(), Stopper())
MUTANTS = (
    (checks.check_a_run_may_end_in_any_way, Expectant()),
    (checks.check_a_resumed_run_goes_on, Fresh()),
    (checks.check_metrics_may_come_and_go, Tabular()),
    (checks.check_any_step_may_be_looked_at, Vaguely()),
    (checks.check_any_step_may_be_looked_at, Reminded()),
    (checks.check_what_it_is_given_stays_as_it_was, Meddling()),
)
