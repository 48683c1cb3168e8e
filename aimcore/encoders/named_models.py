"""Encoders of other libraries, by the names that these give them: ``timm:MODEL@FILE``, ``transformers:FOLDER``."""

from __future__ import annotations

import re
from typing import cast

import torch
from torch import nn

from aimcore.contracts.assembly import built_trunk
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import StoredModel
from aimcore.contracts.messages import shown
from aimcore.contracts.trunks import NamedModel, Trunk, TrunkModule
from aimcore.contracts.uncertainty import warn_uncertain
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.encoder_source import EncoderSource
from aimcore.encoders.preprocessing import GIVEN, KnownPreprocessing
from aimcore.engine.initial_weights import require_finite
from aimcore.engine.weights_fit import fitting
from aimcore.experiment import Weights
from aimcore.experiment.initialization import TRUNK
from aimcore.io.preprocessor_files import IMAGENET
from aimcore.io.weight_files import open_weights
from aimcore.registry.plugins import installed

_NAMED = re.compile(r"(?P<trunk>[a-z_]+):(?!//)(?P<model>[^@]+)(@(?P<file>.+))?")


class UnknownModel(AimcoreError):
    """A text does not name a model of another library with its weights."""


def names_model(text: str) -> bool:
    """Whether ``text`` begins with the name of an installed trunk and a colon."""
    named = _NAMED.fullmatch(text)
    return named is not None and named["trunk"] in installed().registry("trunks")


def load_named(text: str, preprocessing: Preprocessing | None = None) -> Encoder:
    """Open the encoder that ``text`` names, as ``TRUNK:MODEL@FILE``.

    The file is of any format that :func:`aimcore.load_encoder` reads, with the tensors of a layout that the trunk
    converts. Nothing is downloaded. ``preprocessing`` replaces that of the model's configuration.

    Raises:
        UnknownModel: the library has no such model, or its weights are not named.
        UnreadableWeights: the file is missing, damaged, or would run code.
        WeightsMismatch, WeightsNotFinite: its tensors do not fit the model.
    """
    return _loaded(text, *named_weights(text), preprocessing)


def named_weights(text: str) -> tuple[NamedModel, str]:
    """Return the model that ``text`` names, and the path or URL of its weights. Weights are not read.

    Raises:
        UnknownModel: the library has no such model, or its weights are not named.
    """
    named = _NAMED.fullmatch(text)
    assert named is not None, "names_model() must be true"
    kind = cast("type[Trunk]", installed().registry("trunks").get(named["trunk"]))
    try:
        model = kind.of_model(named["model"])
    except NotImplementedError as error:
        raise UnknownModel(f"{shown(text)} is no encoder: {error}") from error
    url = named["file"] or model.weights
    if url is None:
        raise UnknownModel(f"{shown(text)} has no weights, and nothing is downloaded: name their file, {text}@FILE")
    return model, url


def _loaded(text: str, model: NamedModel, url: str, preprocessing: Preprocessing | None) -> Encoder:
    weights = open_weights(url)
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced, and must not change later draws
        module = nn.ModuleDict({TRUNK: built_trunk(model.trunk)})
    entries = fitting(weights.load(), model.trunk, module, Weights(url=url))
    require_finite(url, entries)
    module.load_state_dict(entries)
    built = cast(TrunkModule, module[TRUNK].eval())
    title = _title(built, model.trunk.name)
    source = EncoderSource(text, model.trunk.name, title, weights.files, weights.sha256, None, weights.dtype)
    stored = StoredModel(model.trunk, image_size=model.image_size)
    return Encoder(stored, built, source, _preprocessing(text, model, preprocessing))


def _title(module: TrunkModule, kind: str) -> str:
    """Return what the weights are of: an architecture of a library."""
    library, _, architecture = str(getattr(module, "library", "")).partition(", ")
    name = library.partition(" ")[0] or kind
    return f"an image encoder of {name}" + (f": {architecture}" if architecture else "")


def _preprocessing(text: str, model: NamedModel, given: Preprocessing | None) -> KnownPreprocessing:
    if given is not None:
        return KnownPreprocessing(given, model.image_size, GIVEN)
    if model.pixels is not None:
        return KnownPreprocessing(model.pixels, model.image_size, "the model's configuration")
    warn_uncertain(
        f"{text}: nothing says how its pixels were normalised. ImageNet's mean and deviation are assumed; choose with "
        "preprocessing= (--preprocessing)"
    )
    return KnownPreprocessing(IMAGENET, model.image_size, "assumed: nothing states it")
