"""Loading of a trained module from its run's folder: the recipe, and the weights of the last checkpoint.

Captions, probes and the report's samples load trained weights only with this module.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import torch

from aimcore.contracts.assembly import assembled
from aimcore.contracts.errors import RunFolderError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.checkpoint_checks import verify_weights
from aimcore.engine.initial_weights import load_own_weights
from aimcore.engine.module_building import begun_module
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RunFolder, step_of
from aimcore.running.recorded_recipes import experiment_of
from aimcore.running.starting_points import with_parent


@attrs.frozen(eq=False)
class TrainedModel:
    """The model that a run trained."""

    experiment: Experiment
    module: ObjectiveModule
    """In float32, on the CPU, in evaluation mode."""
    step: int
    """Number of updates."""


def load_trained(run: Path, experiment: Experiment | None = None) -> TrainedModel:
    """Load the final weights of ``run``. The hash of the file is verified, and nothing is unpickled.

    A run that trains nothing has the initial weights of its recipe, and stores no copy of them.

    Args:
        run: the run's folder.
        experiment: the experiment that was run, if its recipe has been read already.

    Raises:
        RunFolderError: it is not a run's folder, training has not ended, or the weights do not fit the recipe.
        CheckpointDamaged: the weights have changed since they were saved.
        WeightsNotFound, WeightsChanged: the initial weights of a run that trains nothing cannot be read.
        WeightsNotFinite: the weights contain NaN or infinity, as after a divergence.
        RecipeError: the recipe cannot be read.
    """
    experiment = experiment or experiment_of(run)
    if experiment.num_steps == 0:
        located, _ = with_parent(experiment, run.parent)
        return TrainedModel(experiment, begun_module(located).eval(), 0)
    last = RunFolder(run).final_checkpoint()
    if last is None:
        newest = RunFolder(run).newest_checkpoint()
        raise RunFolderError(
            f"{run} has no weights yet: they are written when training ends "
            f"({'no checkpoint is there' if newest is None else f'its last checkpoint is {newest.name}'})"
        )
    weights = verify_weights(last).path
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced, and must not change later draws
        module = assembled(experiment.trunk, experiment.objective)
    differences = load_own_weights(weights, module)
    if differences:
        raise RunFolderError(
            f"{weights} does not fit {RunFolder(run).recipe}: {'; '.join(differences)}. One of the two was changed "
            "after training: put back the recipe that was trained"
        )
    return TrainedModel(experiment, module.eval(), step_of(last))
