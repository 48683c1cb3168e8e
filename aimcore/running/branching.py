"""Branches: a run may continue another one if both have the same settings and rates up to the branch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import attrs

from aimcore import recipe
from aimcore.contracts.errors import Problem
from aimcore.experiment import Branch, Experiment
from aimcore.recipe.difference import differences_between

OF_ITS_OWN = frozenset(
    {
        "name", "num_steps", "schedule", "branch", "initial_weights", "checkpoint_every", "log_every", "validate_every",
        "trackers", "probes", "probe_attention", "probe_image_sizes", "probe_native_area",
        "probe_every_layer", "probe_labels_per_class", "probe_label_draws", "evaluations",
    }
)  # fmt: skip
"""Fields in which a branch may differ from the run that it continues. (Only that run may have initial weights.)"""


def continuation_problems(experiment: Experiment, branch: Branch, other: Experiment) -> Iterator[Problem]:
    """Yield why ``experiment`` cannot continue ``other``: other settings, other rates, or no checkpoint there."""
    differing = ", ".join(_differing(other, experiment))
    if differing:
        yield Problem(
            "branch", f"must be equal to {other.name!r} except for its schedule and length; differs in {differing}"
        )
    step, every = branch.step, other.checkpoint_every
    if step > other.num_steps:
        yield Problem("branch.step", f"{other.name!r} ends at step {other.num_steps}, before step {step}")
    elif step < other.num_steps and (every is None or step % every):
        saves = "at its end" if every is None else f"every {every} steps and at its end ({other.num_steps})"
        yield Problem("branch.step", f"{other.name!r} has no checkpoint at step {step}: it saves {saves}")
    if other.branch is not None and step <= other.branch.step:
        yield Problem("branch.step", f"{other.name!r} is also a branch, and begins at step {other.branch.step}")
    rates = _first_difference(experiment, other, min(step, other.num_steps))
    if rates is not None:
        yield Problem(
            "schedule",
            f"must give the rates of {other.name!r} up to step {step}; at step {rates[0]} it gives {rates[1]:g}, not "
            f"{rates[2]:g} (set decay_steps to {other.schedule.horizon(other.num_steps)}, and keep the rest)",
        )


def _differing(other: Experiment, experiment: Experiment) -> Iterator[str]:
    """Yield fields that must be equal and are not, each with both values."""
    fields = [field.name for field in attrs.fields(cast(Any, Experiment)) if field.name not in OF_ITS_OWN]
    if all(getattr(other, name) == getattr(experiment, name) for name in fields):
        return

    for found in differences_between(recipe.to_recipe(other), recipe.to_recipe(experiment)):
        if found.path.partition(".")[0] in fields:
            yield f"{found.path} ({found.left!r}, here {found.right!r})"


def _first_difference(experiment: Experiment, other: Experiment, step: int) -> tuple[int, float, float] | None:
    """Return the first step before ``step`` at which the rates differ, with both rates; None if all are equal."""
    if _base(experiment) == _base(other) and step <= min(_cooldown_start(experiment), _cooldown_start(other)):
        return None  # without a loop: a long run has millions of steps
    for number in range(step):
        mine, theirs = (
            one.schedule.rate(number, num_steps=one.num_steps, peak_lr=one.optimizer.peak_lr)
            for one in (experiment, other)
        )
        if mine != theirs:
            return number, mine, theirs
    return None


def _base(experiment: Experiment) -> tuple[Any, ...]:
    """Return everything that the rates before a cooldown depend on."""
    schedule: Any = experiment.schedule
    end = experiment.schedule.horizon(experiment.num_steps)
    alike = attrs.evolve(schedule, decay_steps=end, cooldown_steps=0, cooldown_lr=0.0)
    return experiment.optimizer.peak_lr, alike


def _cooldown_start(experiment: Experiment) -> int:
    return experiment.num_steps - experiment.schedule.cooldown_steps
