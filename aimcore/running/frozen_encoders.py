"""Frozen encoders by the texts with which users name them: files, folders, runs, and models of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.images import PatchGrid, Preprocessing
from aimcore.contracts.layouts import StoredModel
from aimcore.contracts.trunks import Trunk
from aimcore.encoders import Encoder, load_encoder
from aimcore.encoders.encoder import RUN_LAYOUT, EncoderSource
from aimcore.encoders.named_models import load_named, names_model
from aimcore.encoders.own_files import run_folder
from aimcore.encoders.preprocessing import EncoderTransform, KnownPreprocessing
from aimcore.evaluation.feature_keys import weights_digest
from aimcore.io.run_folder import RECIPE_FILE
from aimcore.running.trained_model import load_trained


def open_encoder(text: str) -> Encoder:
    """Return the encoder that ``text`` names, on the CPU.

    It is one of: what :func:`aimcore.load_encoder` opens; the folder of a run; ``TRUNK:MODEL@FILE``, a model that a
    library knows by name with the file of its weights, such as ``timm:vit_base_patch16_224@mae.pth``;
    ``transformers:FOLDER``, a folder with a ``config.json`` and weights.

    Raises:
        AimcoreError: it names nothing of these, or cannot be loaded.
    """
    if names_model(text):
        return load_named(text)
    run = run_folder(text)
    return load_encoder(text) if run is None or run.final_checkpoint() is not None else _of_baseline(text)


def _of_baseline(text: str) -> Encoder:
    """Return the encoder of a run that trains nothing: it has the initial weights of its recipe, and stores no copy."""
    trained = load_trained(Path(text))
    experiment, data = trained.experiment, trained.experiment.data
    with_objective = StoredModel(experiment.trunk, experiment.objective, image_size=data.image_size)
    source = EncoderSource(text, RUN_LAYOUT, f"a run of {experiment.name}", (), weights_digest(trained.module), None)
    pixels = Preprocessing(data.mean, data.std, data.eval_crop)
    known = KnownPreprocessing(pixels, data.image_size, RECIPE_FILE)
    return Encoder(with_objective, trained.module.trunk, source, known, objective_module=trained.module)


def transform_for(encoder: Encoder, *, image_size: int | None = None, area: int | None = None) -> EncoderTransform:
    """Return the encoder's transform: squares, or with ``area`` whole images of at most this number of patches.

    Raises:
        InvalidValue: the encoder cannot read images of this size.
    """
    own, trunk = encoder.transform, encoder.trunk
    if area is not None and image_size is not None:
        raise InvalidValue("embed", [("area", "cannot be combined with a size: it keeps the images' aspect ratios")])
    changes: dict[str, Any] = {"area": area, "image_size": None} if area is not None else {}
    if image_size is not None:
        changes["image_size"] = image_size
    transform: EncoderTransform = attrs.evolve(cast(Any, own), **changes)
    if transform.image_size is None and "native" not in trunk.capabilities:
        problem = f"trunk {trunk.name!r} reads squares of one size only: its positions are for that size"
        raise InvalidValue("embed", [("area", problem)])
    if transform.image_size is not None:
        _require_size(trunk, transform.image_size)
    return transform


def _require_size(trunk: Trunk, size: int) -> None:
    side = trunk.patch_size
    if size < side or size % side:
        below, above = max(1, size // side) * side, (size // side + 1) * side
        problem = f"must be a multiple of the patch size ({side}), got {size}: {below} or {above} are the nearest"
        raise InvalidValue("embed", [("size", problem)])
    problems = list(trunk.problems_with(PatchGrid(size // side, size // side)))
    if problems:
        raise InvalidValue("embed", [("size", f"{size} px: {problem}") for problem in problems])
