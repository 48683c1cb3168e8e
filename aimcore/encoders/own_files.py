"""Encoders of runs: their trained weights, or the weights that a run which trains nothing begins with."""

from __future__ import annotations

from pathlib import Path

import torch

from aimcore import recipe
from aimcore.contracts.assembly import assembled, built_trunk
from aimcore.contracts.errors import LocationError
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import StoredModel
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.trunks import ExportedTrunk, Trunk
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.encoder_source import EncoderSource
from aimcore.encoders.preprocessing import KnownPreprocessing
from aimcore.encoders.recognition import UnknownWeights
from aimcore.encoders.saved_encoders import RUN_LAYOUT
from aimcore.engine.checkpoint_checks import verify_weights
from aimcore.engine.initial_weights import load_own_weights
from aimcore.engine.located_weights import located
from aimcore.engine.module_building import begun_module
from aimcore.engine.weights_fit import differences
from aimcore.evaluation.feature_keys import weights_digest
from aimcore.experiment import Experiment
from aimcore.experiment.initialization import TRUNK
from aimcore.io.locations import local_path
from aimcore.io.run_folder import RunFolder
from aimcore.io.weight_files import StoredFile


def run_folder(url: str) -> RunFolder | None:
    """Return the run whose folder ``url`` is, or None if it is something else."""
    try:
        path = local_path(url)
    except LocationError:
        return None  # opening it says why
    return RunFolder(path) if path is not None and RunFolder(path).recipe.is_file() else None


def encoder_of_run(run: RunFolder) -> Encoder:
    """Return the trained trunk of a run, with its objective. The hash of the weights is verified.

    Weights that can be merged into a plain trunk are merged (``Trunk.export``), such as those of LoRA. A run that
    trains nothing has the initial weights of its recipe, and stores no copy of them.

    Raises:
        UnknownWeights: the run has no weights, or they do not fit its recipe.
        CheckpointDamaged: the weights have changed since they were saved.
        WeightsNotFound, WeightsChanged: the initial weights of a run that trains nothing cannot be read.
        RecipeError: the recipe cannot be read.
    """
    experiment = recipe.load(run.recipe)
    if experiment.num_steps == 0:
        return _of_baseline(run, experiment)
    weights = trained_weights(run)
    with torch.random.fork_rng(devices=[]):  # random weights are replaced, and must not change later draws
        module = assembled(experiment.trunk, experiment.objective)
    misfits = load_own_weights(Path(weights.url), module)
    if misfits:
        raise UnknownWeights(f"{weights.url} does not fit {run.recipe}: {'; '.join(misfits)}")
    source = EncoderSource(
        url=weights.url, layout=RUN_LAYOUT, title=f"the run {experiment.name!r} of this project", files=(weights,),
        sha256=weights.sha256, licence=None,
    )  # fmt: skip
    return _encoder(run, experiment, module.eval(), source)


def trunk_of_run(run: RunFolder) -> tuple[Trunk, str]:
    """Return the trunk in the recipe of a run, and the file with its weights. The weights are not read.

    Raises:
        UnknownWeights: no file holds the weights of the trunk.
        CheckpointDamaged: the weights have changed since they were saved.
        RecipeError: the recipe cannot be read.
    """
    experiment = recipe.load(run.recipe)
    if experiment.num_steps:
        return experiment.trunk, trained_weights(run).url
    files, _ = located(experiment, run.path.parent)
    urls = [weights.url for weights in files.weights_by_path.values() if weights.gives(TRUNK) and not weights.resize]
    if len(urls) != 1 or urls[0] is None:
        raise UnknownWeights(f"{run.path} trains nothing, and no file has the weights of its whole trunk as it is")
    return experiment.trunk, urls[0]


def trained_weights(run: RunFolder) -> StoredFile:
    """Return the file with the final weights of a run, whose hash is verified.

    Raises:
        UnknownWeights: training has not ended.
        CheckpointDamaged: the weights have changed since they were saved.
    """
    last = run.final_checkpoint()
    if last is None:
        raise UnknownWeights(f"{run.path} has no final weights: they are written when training ends")
    weights = verify_weights(last)
    return StoredFile(str(weights.path), weights.path.stat().st_size, weights.sha256)


def _of_baseline(run: RunFolder, experiment: Experiment) -> Encoder:
    module = begun_module(located(experiment, run.path.parent)[0]).eval()
    title = f"the run {experiment.name!r} of this project, which trains nothing"
    return _encoder(run, experiment, module, EncoderSource(
        str(run.path), RUN_LAYOUT, title, (), weights_digest(module), None
    ))  # fmt: skip


def _encoder(run: RunFolder, experiment: Experiment, module: ObjectiveModule, source: EncoderSource) -> Encoder:
    data = experiment.data
    size = None if data.native is not None else data.image_size
    known = KnownPreprocessing(Preprocessing(data.mean, data.std, data.eval_crop), size, run.recipe.name)
    exported = experiment.trunk.export(module.trunk)
    model = StoredModel(trunk=exported.trunk, objective=experiment.objective, image_size=size)
    if exported.trunk == experiment.trunk:
        return Encoder(model, module.trunk, source, known, objective_module=module)
    merged = _around(exported, experiment, module)
    if merged is not None:
        return Encoder(model, merged.trunk, source, known, objective_module=merged, is_changed=True)
    with torch.random.fork_rng(devices=[]):
        trunk = built_trunk(exported.trunk)
    trunk.load_state_dict(exported.state)
    alone = StoredModel(trunk=exported.trunk, image_size=size)
    return Encoder(alone, trunk.eval(), source, known, is_changed=True)


def _around(exported: ExportedTrunk, experiment: Experiment, module: ObjectiveModule) -> ObjectiveModule | None:
    """Return the objective's module around the exported trunk, with the weights of both.

    None if the other parts do not fit around it, such as a teacher that is a copy of the adapted trunk.
    """
    with torch.random.fork_rng(devices=[]):
        merged = assembled(exported.trunk, experiment.objective)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith(f"{TRUNK}.")}
    state |= {f"{TRUNK}.{name}": value for name, value in exported.state.items()}
    if list(differences(merged.state_dict(), state)):
        return None
    merged.load_state_dict(state)
    return merged.eval()
