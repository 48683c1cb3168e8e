"""What a run's folder holds already, compared with what is about to run there."""

from __future__ import annotations

from pathlib import Path

from aimcore import recipe
from aimcore.contracts.errors import AimcoreError, RunFolderError
from aimcore.contracts.messages import shortened
from aimcore.engine.distributed import on_first_rank
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RunFolder
from aimcore.recipe.difference import differences_between, in_words


def difference_from_recorded(experiment: Experiment, run: Path) -> str | None:
    """How ``experiment`` differs from the one whose recipe lies in the folder ``run``; None where it does not."""
    path = RunFolder(run).recipe
    if not path.exists():
        return None
    try:
        recorded = recipe.load(path)
    except AimcoreError as error:
        return f"{path} cannot be read ({error})"
    if recorded == experiment:
        return None
    places = differences_between(recipe.to_recipe(recorded), recipe.to_recipe(experiment))
    told = [
        f"{place.path} ({shortened(in_words(place.left))} there, {shortened(in_words(place.right))} here)"
        for place in places
    ]
    return f"{experiment.name} differs in {', '.join(told)}"


def require_same(experiment: Experiment, run: Path) -> None:
    """See that what ``run`` holds, if anything, is of this experiment; every process calls it.

    Raises:
        RunFolderError: it is of another recipe, which this one cannot go on with.
    """
    difference = on_first_rank(lambda: difference_from_recorded(experiment, run))
    if difference is not None:
        raise RunFolderError(
            f"{run} holds a run of another recipe, which cannot be resumed: {difference}. Resume with the same "
            "experiment, or choose another folder"
        )
