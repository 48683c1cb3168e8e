"""Folders of :meth:`Encoder.save`: ``model.safetensors``, and ``encoder.json`` with what the weights do not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save
from torch import Tensor

from aimcore.contracts.component import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.trunks import Trunk
from aimcore.encoders.encoder_source import EncoderError, EncoderSource
from aimcore.encoders.preprocessing import KnownPreprocessing
from aimcore.encoders.recognition import UnknownWeights
from aimcore.io.atomic_files import make_folder, write_atomically
from aimcore.io.run_folder import WEIGHTS_FILE
from aimcore.io.weight_files import StoredWeights
from aimcore.io.weight_siblings import beside, json_object
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed

SAVED_ENCODER = "encoder.json"
"""The file next to the weights of a saved encoder, with all that the weights do not say."""
SCHEMA_VERSION = 1


@component("run")
class RunTrunk(FileLayout):
    """A trunk that is saved with its component; it is not listed, because its names depend on the trunk."""

    trunk: Trunk

    @property
    def title(self) -> str:
        """What it is."""
        return f"the trunk {self.trunk.name!r}, as this project saves it"

    @property
    def table(self) -> TensorTable:
        """The module's own names."""
        with torch.device("meta"):
            names = [f"trunk.{name}" for name in self.trunk.build().state_dict()]
        return TensorTable(tuple(TensorMap(name, (name,)) for name in names))

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the trunk."""
        return StoredModel(trunk=self.trunk)


RUN_LAYOUT = RunTrunk.name
"""What the layout of a run's weights is called; it is not listed, because the run's recipe says what they are."""


@attrs.frozen(eq=False)
class SavedSettings:
    """The content of ``encoder.json``: how the weights next to it are opened."""

    layout: str
    given: GivenSettings
    trunk: Trunk | None
    """The trunk of a run's encoder; that of other layouts follows from the weights."""
    preprocessing: KnownPreprocessing
    licence: str | None


def require_no_encoder(folder: Path) -> None:
    """Refuse a folder that holds an encoder.

    Raises:
        EncoderError: it does.
    """
    if (folder / SAVED_ENCODER).exists() or (folder / WEIGHTS_FILE).exists():
        raise EncoderError(f"{folder} holds an encoder already: give another folder")


def write_encoder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    model: StoredModel,
    known: KnownPreprocessing,
    source: EncoderSource,
    *,
    is_listed: bool,
) -> None:
    """Write the files of a saved encoder.

    Args:
        folder: the folder; it is made if it does not exist.
        tensors: the weights, by their names in the file.
        model: the model that they belong to.
        known: its preprocessing.
        source: where the weights were from.
        is_listed: whether they are in an installed layout; otherwise they are those of the trunk, and the component of
            the trunk is written.

    Raises:
        CannotWrite: the system refused.
    """
    mean, std, eval_crop = known.preprocessing
    described = {
        "schema_version": SCHEMA_VERSION,
        "layout": source.layout,
        "trunk": None if is_listed else plain(model.trunk),
        "settings": {name: plain(value) for name, value in model.settings.items()},
        "image_size": known.image_size,
        "preprocessing": {"mean": list(mean), "std": list(std), "eval_crop": eval_crop},
        "source": {"url": source.name, "sha256": source.sha256, "licence": source.licence},
    }
    make_folder(folder)
    write_atomically(folder / WEIGHTS_FILE, save({name: value.contiguous() for name, value in tensors.items()}))
    write_atomically(folder / SAVED_ENCODER, json.dumps(described, indent=2) + "\n")


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
