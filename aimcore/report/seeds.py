"""Variants of a study, which are runs that differ only in their seed: the mean of each score, and its spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import attrs

from aimcore.report.run_records import RunFiles, files_of
from aimcore.running.summary import ExperimentSummary, Summary

_DEEPEST = 8
"""Longest chain of runs that begin with each other that is followed; a recipe from a file may have a circle."""


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
        """The mean over seeds."""
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation between seeds (of a sample: divided by the number of seeds minus one)."""
        return stdev(self.values)

    @property
    def times_chance(self) -> float | None:
        """The mean divided by chance; None if chance is unknown, 0 or 1."""
        return None if self.chance is None or not 0 < self.chance < 1 else self.mean / self.chance


@attrs.frozen
class Variant:
    """Runs whose recipes differ only in name and seed."""

    name: str
    """The name of the only run; of several, the common part of their names, with a star for the rest."""
    by_seed: Mapping[int, ExperimentSummary]
    """The finished runs by their seed, in the summary's order."""


@attrs.frozen
class SeedGroup:
    """Runs whose recipes differ only in name and seed."""

    name: str
    """The common part of their names, with a star for the rest."""
    experiments: tuple[str, ...]
    scores: tuple[SeedScore, ...]
    """Scores that at least two runs have."""


def variants(summary: Summary, out: Path) -> tuple[Variant, ...]:
    """Return the variants among the finished runs in ``out``, in the summary's order.

    The recipes decide, not the names; a run whose recipe cannot be read is in no variant. Of several runs with the same
    seed the first one counts.
    """
    recipes = {entry.name: _experiment(files_of(entry, out)) for entry in summary.experiments}
    found: dict[str, dict[int, ExperimentSummary]] = {}
    for entry in summary.experiments:
        if entry.status == "finished" and recipes[entry.name]:
            key = json.dumps(_without_seed(entry.name, recipes), sort_keys=True)
            found.setdefault(key, {}).setdefault(entry.seed, entry)
    return tuple(Variant(_name([one.name for one in runs.values()]), runs) for runs in found.values())


def _experiment(run: RunFiles) -> Mapping[str, Any]:
    recipe = run.recipe()
    experiment = recipe.get("experiment") if isinstance(recipe, Mapping) else None
    return experiment if isinstance(experiment, Mapping) else {}


def _without_seed(name: str, recipes: Mapping[str, Mapping[str, Any]], depth: int = 0) -> dict[str, Any]:
    """Return the recipe without name and seed, and with other runs that it begins with described in the same way.

    Runs that begin with other runs of their own seed differ in the names of these runs too.
    """
    experiment = {key: value for key, value in recipes[name].items() if key not in ("name", "seed")}
    for field in ("initial_weights", "branch"):
        value = experiment.get(field)
        many = [dict(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, Mapping)]
        for one in many:
            parent = one.get("experiment")
            if isinstance(parent, str) and parent in recipes and depth < _DEEPEST:
                one["experiment"] = _without_seed(parent, recipes, depth + 1)
        if many:
            experiment[field] = many
    return experiment


def seed_groups(variants: Sequence[Variant]) -> tuple[SeedGroup, ...]:
    """Return the scores of the variants that were run with at least two seeds."""
    return tuple(_group(list(one.by_seed.values())) for one in variants if len(one.by_seed) > 1)


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
    if len(names) == 1:
        return names[0]
    start = _beginning(names)
    end = _beginning([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}" if start or end else ", ".join(names)


def _beginning(names: Sequence[str]) -> str:
    """Return the common prefix of all names."""
    places = takewhile(lambda characters: len(set(characters)) == 1, zip(*names, strict=False))
    return "".join(characters[0] for characters in places)
