"""Recipes in the folders of runs: they are read, and compared with the experiment that is about to run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs

from aimcore import recipe
from aimcore.contracts.errors import AimcoreError, RunFolderError
from aimcore.contracts.messages import shortened
from aimcore.engine.distributed import on_first_rank
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RECIPE_FILE, RunFolder, runs_in
from aimcore.recipe.difference import differences_between, in_words


def experiment_of(run: Path) -> Experiment:
    """Return the experiment that was run in the folder ``run``.

    Raises:
        RunFolderError: it is not a run's folder.
        RecipeError: the recipe cannot be read.
    """
    path = RunFolder(run).recipe
    if not path.is_file():
        inside = [one.path.name for one in runs_in(run)]
        hint = f"; give one of the runs in it: {', '.join(inside)}" if inside else ""
        raise RunFolderError(f"{run} is not a run's folder: it has no {RECIPE_FILE}{hint}")
    return recipe.load(path)


def recorded_experiment(run: RunFolder) -> Experiment | str:
    """Return the experiment whose recipe is in the folder, or a message that says why none can be read."""
    if not run.recipe.is_file():
        return f"there is no run of {run.path.name!r} in {run.path.parent}: run it first, as part of the study"
    try:
        return recipe.load(run.recipe)
    except AimcoreError as error:
        return f"the recipe of {run.path} cannot be read: {error}"


def difference_from_recorded(experiment: Experiment, run: RunFolder) -> str | None:
    """Describe how ``experiment`` differs from the recipe in the folder; None if it does not, or there is no recipe.

    The engine's settings may differ, except the precision: they change how the state is spread, and not the updates.
    """
    path = run.recipe
    if not path.exists():
        return None
    try:
        recorded = recipe.load(path)
    except AimcoreError as error:
        return f"{path} cannot be read ({error})"
    engine = attrs.evolve(cast(Any, experiment.engine), precision=recorded.engine.precision)
    recorded = attrs.evolve(cast(Any, recorded), engine=engine)
    if recorded == experiment:
        return None
    places = differences_between(recipe.to_recipe(recorded), recipe.to_recipe(experiment))
    described = [
        f"{place.path} ({shortened(in_words(place.left))} there, {shortened(in_words(place.right))} here)"
        for place in places
    ]
    return f"{experiment.name} differs in {', '.join(described)}"


def require_same(experiment: Experiment, run: RunFolder) -> None:
    """Refuse a folder that holds a run of another experiment. Every process calls this.

    Raises:
        RunFolderError: the recipes differ; the message lists the differences.
    """
    difference = on_first_rank(lambda: difference_from_recorded(experiment, run))
    if difference is not None:
        raise RunFolderError(
            f"{run.path} holds a run that this experiment cannot continue: {difference}. Resume with the same "
            "experiment, or choose another folder"
        )
