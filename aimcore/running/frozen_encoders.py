"""Frozen encoders by the texts with which users name them: files, folders, runs, and models of other libraries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from loguru import logger

from aimcore.contracts.errors import AimcoreError, InvalidValue
from aimcore.contracts.images import PatchGrid, Preprocessing
from aimcore.contracts.messages import shown
from aimcore.contracts.sources import Source
from aimcore.contracts.trunks import NamedModel, Trunk
from aimcore.data.rendering import Renderer, renderer_of
from aimcore.engine.initial_weights import load_trunk
from aimcore.evaluation.frozen_encoder import FrozenEncoder, Towers
from aimcore.experiment import Data, Weights
from aimcore.experiment.data import IMAGENET_MEAN, IMAGENET_STD
from aimcore.io.run_folder import RunFolder
from aimcore.registry.plugins import installed
from aimcore.running.trained_model import load_trained

_IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 0.875)
_NAMED = re.compile(r"(?P<trunk>[a-z_]+):(?!//)(?P<model>[^@]+)(@(?P<file>.+))?")


class UnknownEncoder(AimcoreError):
    """A text does not name an encoder."""


def open_encoder(text: str) -> FrozenEncoder:
    """Return the encoder that ``text`` names, on the CPU.

    It is one of: the folder of a run; ``TRUNK:MODEL@FILE``, a model that a library knows by name with a safetensors
    file of its weights, such as ``timm:vit_base_patch16_224@mae.safetensors``; ``transformers:FOLDER``, a folder with a
    ``config.json`` and a ``model.safetensors``.

    Raises:
        UnknownEncoder: it names nothing of these.
        AimcoreError: the encoder cannot be loaded.
    """
    if RunFolder(Path(text)).recipe.is_file():
        return _of_run(text)
    named = _NAMED.fullmatch(text)
    if named is not None and named["trunk"] in installed().registry("trunks"):
        return _of_model(text, named["trunk"], named["model"], named["file"])
    raise UnknownEncoder(
        f"{shown(text)} is no encoder: give the folder of a run, transformers:FOLDER, or timm:MODEL@FILE"
    )


def _of_run(text: str) -> FrozenEncoder:
    trained = load_trained(Path(text))
    experiment, module = trained.experiment, trained.module
    data, objective = experiment.data, experiment.objective
    has_towers = "embed" in objective.skills and objective.text is not None
    return FrozenEncoder(
        name=text,
        trunk=experiment.trunk,
        module=module.trunk,
        pixels=Preprocessing(data.mean, data.std, data.eval_crop),
        image_size=data.image_size,
        objective=objective,
        attention=experiment.probe_attention,
        towers=Towers(module, *cast(Any, objective.text)) if has_towers else None,
    )


def _of_model(text: str, name: str, model: str, file: str | None) -> FrozenEncoder:
    kind = cast("type[Trunk]", installed().registry("trunks").get(name))
    try:
        named: NamedModel = kind.of_model(model)
    except NotImplementedError as error:
        raise UnknownEncoder(f"{shown(text)} is no encoder: {error}") from error
    url = file or named.weights
    if url is None:
        raise UnknownEncoder(
            f"{shown(text)} has no weights, and nothing is downloaded: name a safetensors file, {name}:{model}@FILE"
        )
    if named.pixels is None:
        logger.warning(
            "{}: it is not known how its pixels were normalised; ImageNet's mean and deviation are used", text
        )
    module = load_trunk(named.trunk, Weights(url=url))
    return FrozenEncoder(
        name=text,
        trunk=named.trunk,
        module=module,
        pixels=named.pixels or _IMAGENET,
        image_size=named.image_size,
    )


def renderer_for(
    encoder: FrozenEncoder, source: Source, *, image_size: int | None = None, area: int | None = None
) -> Renderer:
    """Return what renders images for ``encoder``: squares, or with ``area`` whole images of at most so many patches.

    Raises:
        InvalidValue: the encoder cannot read images of this size.
    """
    size, trunk = image_size or encoder.image_size, encoder.trunk
    if area is not None and "native" not in trunk.capabilities:
        problem = f"trunk {trunk.name!r} reads only squares of {size} px: it has positions for that size only"
        raise InvalidValue("embed", [("area", problem)])
    data = Data(
        train=source, validation=source, batch_size=1, image_size=size,
        mean=encoder.pixels.mean, std=encoder.pixels.std, eval_crop=encoder.pixels.eval_crop,
    )  # fmt: skip
    renderer = renderer_of(data, trunk.patch_size, area)
    if area is None:
        _require_size(trunk, size)
    return renderer


def _require_size(trunk: Trunk, size: int) -> None:
    side = trunk.patch_size
    if size % side:
        below, above = size // side * side, (size // side + 1) * side
        problem = f"must be a multiple of the patch size ({side}), got {size}: {below} or {above} are the nearest"
        raise InvalidValue("embed", [("size", problem)])
    problems = list(trunk.problems_with(PatchGrid(size // side, size // side)))
    if problems:
        raise InvalidValue("embed", [("size", f"{size} px: {problem}") for problem in problems])
