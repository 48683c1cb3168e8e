"""A trained module from its run's folder: the recipe, and the weights of the last checkpoint."""

from __future__ import annotations

from pathlib import Path

import attrs

from aimcore import recipe
from aimcore.contracts.assembly import assembled
from aimcore.contracts.errors import RunFolderError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.checkpoint_checks import WEIGHTS, sound_weights
from aimcore.engine.initial_weights import load_own_weights
from aimcore.engine.saved_checkpoints import newest, step_of
from aimcore.experiment import Experiment
from aimcore.running.recorded_recipes import RECIPE_FILE


@attrs.frozen(eq=False)
class Trained:
    """What a run came to."""

    experiment: Experiment
    module: ObjectiveModule
    """In float32, on the CPU, in evaluation mode."""
    step: int
    """Updates done."""


def experiment_of(run: Path) -> Experiment:
    """What was run in the folder ``run``.

    Raises:
        RunFolderError: it is not a run's folder.
        RecipeError: the recipe cannot be read.
    """
    if not (run / RECIPE_FILE).is_file():
        inside = sorted(path.parent.name for path in run.glob(f"*/{RECIPE_FILE}"))
        hint = f"; give one of the runs in it: {', '.join(inside)}" if inside else ""
        raise RunFolderError(f"{run} is not a run's folder: it has no {RECIPE_FILE}{hint}")
    return recipe.load(run / RECIPE_FILE)


def load_trained(run: Path, experiment: Experiment | None = None) -> Trained:
    """The module of ``run`` with the weights that it ended with, their file's hash compared; nothing is unpickled.

    Args:
        run: the run's folder.
        experiment: what :func:`experiment_of` gave, where that is known.

    Raises:
        RunFolderError: it is not a run's folder, training has not come to its end, or recipe and weights do not fit.
        CheckpointDamaged: the weights are not as they were saved.
        WeightsNotFinite: they are those of a run that diverged.
        RecipeError: the recipe cannot be read.
    """
    experiment = experiment or experiment_of(run)
    last = newest(run)
    if last is None or not (last / WEIGHTS).is_file():
        raise RunFolderError(
            f"{run} has no weights yet: they are written when training has come to its end "
            f"({'no checkpoint is there' if last is None else f'its last checkpoint is {last.name}'})"
        )
    weights = sound_weights(last)
    module = assembled(experiment.trunk, experiment.objective)
    differences = load_own_weights(weights, module)
    if differences:
        raise RunFolderError(
            f"{weights} does not fit {run / RECIPE_FILE}: {'; '.join(differences)}. One of the two was changed after "
            "training: put back the recipe that was trained"
        )
    return Trained(experiment, module.eval(), step_of(last))
