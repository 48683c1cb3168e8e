"""Runs that differ only in their seed: the mean of each score, and its range."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from statistics import fmean

import attrs

from aimcore.report.run_records import files_of
from aimcore.running.summary import ExperimentSummary, Summary


@attrs.frozen
class SeedScore:
    """One score of several seeds, as fractions."""

    name: str
    """The name of a probe, or of an evaluation's score."""
    values: tuple[float, ...]
    chance: float | None = None
    """The score of guessing; the mean if it differs between seeds."""

    @property
    def mean(self) -> float:
        """One value per seed."""
        return fmean(self.values)

    @property
    def times_chance(self) -> float | None:
        """The mean divided by chance; None if chance is unknown, 0 or 1."""
        return None if self.chance is None or not 0 < self.chance < 1 else self.mean / self.chance


@attrs.frozen
class SeedGroup:
    """Runs whose recipes differ only in name and seed."""

    name: str
    """The common part of their names, with a star for the rest."""
    experiments: tuple[str, ...]
    scores: tuple[SeedScore, ...]
    """Scores that at least two runs have."""


def seed_groups(summary: Summary, out: Path) -> tuple[SeedGroup, ...]:
    """Return the groups of at least two finished runs in ``out``, in the summary's order.

    The recipes decide, not the names; a run whose recipe cannot be read is in no group.
    """
    found: dict[str, list[ExperimentSummary]] = {}
    for entry in summary.experiments:
        recipe = files_of(entry, out).recipe()
        experiment = recipe.get("experiment") if isinstance(recipe, Mapping) else None
        if entry.status == "finished" and isinstance(experiment, Mapping):
            others = {key: value for key, value in experiment.items() if key not in ("name", "seed")}
            found.setdefault(json.dumps(others, sort_keys=True), []).append(entry)
    return tuple(_group(entries) for entries in found.values() if len({entry.seed for entry in entries}) > 1)


def _group(entries: Sequence[ExperimentSummary]) -> SeedGroup:
    names = tuple(entry.name for entry in entries)
    measured = [_scores(entry) for entry in entries]
    scores = []
    for name in dict.fromkeys(name for one in measured for name in one):
        values, chances = zip(*(one[name] for one in measured if name in one), strict=True)
        chance = None if None in chances else fmean(chances)
        if len(values) > 1:
            scores.append(SeedScore(name, values, chance))
    return SeedGroup(_name(names), names, tuple(scores))


def _scores(entry: ExperimentSummary) -> dict[str, tuple[float, float | None]]:
    """Return each score with its chance; that of a probe is not recorded."""
    probes = {name: (probe.top1, None) for name, probe in (entry.probes or {}).items()}
    return {**probes, **{name: (score.value, score.chance) for name, score in (entry.evaluations or {}).items()}}


def _name(names: Sequence[str]) -> str:
    start = _beginning(names)
    end = _beginning([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}" if start or end else ", ".join(names)


def _beginning(names: Sequence[str]) -> str:
    """Return the common prefix of all names."""
    places = takewhile(lambda characters: len(set(characters)) == 1, zip(*names, strict=False))
    return "".join(characters[0] for characters in places)
