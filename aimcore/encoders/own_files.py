"""Encoders that this project wrote: the folder of a run, and the folders of :meth:`Encoder.save`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from aimcore import recipe
from aimcore.contracts.assembly import assembled
from aimcore.contracts.component import component
from aimcore.contracts.errors import LocationError
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import Trunk
from aimcore.encoders.encoder import RUN_LAYOUT, SAVED_ENCODER, SCHEMA_VERSION, Encoder, EncoderSource
from aimcore.encoders.preprocessing import KnownPreprocessing
from aimcore.encoders.recognition import UnknownWeights
from aimcore.engine.checkpoint_checks import verify_weights
from aimcore.engine.initial_weights import load_own_weights
from aimcore.io.locations import local_path
from aimcore.io.run_folder import RunFolder
from aimcore.io.weight_files import StoredFile, StoredWeights, beside, json_object
from aimcore.recipe.reading import structured
from aimcore.registry.plugins import installed


@attrs.frozen(eq=False)
class SavedSettings:
    """The content of ``encoder.json``: how the weights next to it are opened."""

    layout: str
    given: GivenSettings
    trunk: Trunk | None
    """The trunk of a run's encoder; that of other layouts follows from the weights."""
    preprocessing: KnownPreprocessing
    licence: str | None


def run_folder(url: str) -> RunFolder | None:
    """Return the run whose folder ``url`` is, or None if it is something else."""
    try:
        path = local_path(url)
    except LocationError:
        return None  # opening it says why
    return RunFolder(path) if path is not None and RunFolder(path).recipe.is_file() else None


def encoder_of_run(run: RunFolder) -> Encoder:
    """Return the trained trunk of a run, with its objective. The hash of the weights is verified.

    Weights that can be merged into a plain trunk are merged (``Trunk.export``), such as those of LoRA; then the
    encoder has the trunk alone.

    Raises:
        UnknownWeights: the run has no weights, or they do not fit its recipe.
        CheckpointDamaged: the weights have changed since they were saved.
        RecipeError: the recipe cannot be read.
    """
    experiment = recipe.load(run.recipe)
    last = run.final_checkpoint()
    if last is None:
        files = [weights.url for weights in experiment.weights_by_path.values() if weights.url is not None]
        why = (
            f"trains nothing and stores no weights: open {', '.join(files) or 'another run'}"
            if experiment.num_steps == 0
            else "has no final weights: they are written when training ends"
        )
        raise UnknownWeights(f"{run.path} {why}")
    weights = verify_weights(last)
    with torch.random.fork_rng(devices=[]):  # random weights are replaced, and must not change later draws
        module = assembled(experiment.trunk, experiment.objective)
    differences = load_own_weights(weights.path, module)
    if differences:
        raise UnknownWeights(f"{weights.path} does not fit {run.recipe}: {'; '.join(differences)}")
    module.eval()
    trunk, state = experiment.trunk.export(module.trunk)
    data = experiment.data
    source = EncoderSource(
        url=str(weights.path), layout=RUN_LAYOUT, title=f"the run {experiment.name!r} of this project",
        files=(StoredFile(str(weights.path), weights.path.stat().st_size, weights.sha256),), sha256=weights.sha256,
        licence=None,
    )  # fmt: skip
    size = None if data.native is not None else data.image_size
    known = KnownPreprocessing(Preprocessing(data.mean, data.std, data.eval_crop), size, run.recipe.name)
    if trunk == experiment.trunk:
        model = StoredModel(trunk=trunk, objective=experiment.objective, image_size=size)
        return Encoder(model, module.trunk, source, known, objective_module=module)
    with torch.random.fork_rng(devices=[]):
        merged = trunk.build()
    merged.load_state_dict(state)
    return Encoder(StoredModel(trunk=trunk, image_size=size), merged.eval(), source, known, is_changed=True)


@component("run")  # RUN_LAYOUT: the documentation reads literals
class RunTrunk(FileLayout):
    """The trunk of a run, saved with its component; it is not listed, because its names depend on the trunk."""

    trunk: Trunk

    @property
    def title(self) -> str:
        """What it is."""
        return f"the trunk {self.trunk.name!r} of a run of this project"

    @property
    def table(self) -> TensorTable:
        """The module's own names."""
        with torch.device("meta"):
            names = [f"trunk.{name}" for name in self.trunk.build().state_dict()]
        return TensorTable(tuple(TensorMap(name, (name,)) for name in names))

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the trunk."""
        return StoredModel(trunk=self.trunk)


def saved_settings(weights: StoredWeights) -> SavedSettings | None:
    """Return what :meth:`Encoder.save` wrote next to the weights, or None if there is nothing.

    Raises:
        UnknownWeights: there is an ``encoder.json`` of another kind.
    """
    url = beside(weights.url, SAVED_ENCODER)
    content = json_object(weights.sibling(SAVED_ENCODER), url)
    return None if content is None else _settings_in(content, url)


def _settings_in(content: Mapping[str, Any], url: str) -> SavedSettings:
    """Read an ``encoder.json``.

    Raises:
        UnknownWeights: it is not one, or was written by a newer version.
        RecipeError: its tokenizer is unknown.
    """
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            version = shown(content["schema_version"])
            raise UnknownWeights(f"{url} has the version {version}, and {SCHEMA_VERSION} is read: update aimcore")
        settings, trunk = dict(content["settings"]), content["trunk"]
        if settings.get("tokenizer") is not None:
            settings["tokenizer"] = structured(settings["tokenizer"], TextTokenizer, installed(), {})
        if settings.get("probe_layers") is not None:
            settings["probe_layers"] = tuple(settings["probe_layers"])
        if trunk is not None:
            trunk = structured(trunk, Trunk, installed(), {})
        stated = content["preprocessing"]
        pixels = Preprocessing(tuple(stated["mean"]), tuple(stated["std"]), float(stated["eval_crop"]))
        known = KnownPreprocessing(pixels, content["image_size"], Path(url).name)
        licence = content["source"]["licence"]
        return SavedSettings(content["layout"], GivenSettings(**settings), trunk, known, licence)
    except (KeyError, TypeError) as error:
        raise UnknownWeights(f"{url} does not describe an encoder: {type(error).__name__}: {shown(error)}") from error
