"""Vision encoders of transformers as trunks. A plugin of its own, because it requires the extra ``transformers``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import isqrt
from pathlib import Path
from typing import Any, Self, cast

import attrs
import torch
from torch import Tensor, nn

from aimcore import InvalidValue, PatchGrid, Preprocessing, Problem, Trunk, at_least, component, hookimpl
from aimcore.contracts import limits
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import shown
from aimcore.contracts.trunks import NamedModel
from aimcore_trunks.foreign import (
    FAULTS,
    ForeignModule,
    Outputs,
    below_model,
    exempt_vectors_from_decay,
    outputs_of,
    reading_problems,
    width_of,
)  # fmt: skip
from aimcore_trunks.normalization import CONFIG, read_config
from aimcore_trunks.transformers_building import MAE, USUAL_SIDE, blocks_of, built_model, config_of, read_on_meta
from aimcore_trunks.transformers_names import with_present_names

_HEADS = (
    "classifier.", "pooler.", "decoder.", "lm_head.", "cls_classifier.", "distillation_classifier.",
    "head.", "text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias",
)  # fmt: skip
"""What surrounds an encoder in files: classifiers, poolers, decoders, and the other tower with what embeds images."""
NAFLEX = ("siglip2", "siglip2_vision_model")
"""Types of models of transformers that read patches of images of any shape (NaFlex)."""
NO_NAFLEX = (
    "NaFlex models of SigLIP 2 cannot be read: their input is patches of images of any shape, which is not supported. "
    "Give a SigLIP 2 of a fixed image size, whose config.json has model_type 'siglip'"
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of files of weights, the preferred one first; an index names shards."""
_INCIDENTAL = ("transformers_version", "dtype", "torch_dtype")
"""Entries of a configuration that do not describe the model."""


@hookimpl
def trunks() -> list[type[Trunk]]:
    """Supply the trunk of this module."""
    return [TransformersTrunk]


@component("transformers")
class TransformersTrunk(Trunk):
    """Any vision encoder of transformers that ``AutoModel`` builds from a configuration.

    Nothing is downloaded: the configuration is part of the recipe (:func:`transformers_trunk` reads it from a folder),
    and ``initial_weights`` takes a ``model.safetensors``. Its classifiers, poolers, decoders and text towers are not
    read.

    If the model has a list of blocks of one width, they are the trunk's layers. Other models have one layer: the output
    itself.
    """

    config: str
    """The configuration as JSON, with its ``model_type``: the content of a ``config.json``."""
    patch_size: int = 16
    """Pixels per side of a token: the total stride of a convolutional network."""
    num_extra: int = 0
    """Number of tokens before those of patches: class, distillation and register tokens."""
    interpolate: bool = False
    """Whether images of another size than the configuration's get interpolated positions, where the model can do that
    (``interpolate_pos_encoding``). Without it such images are an error."""

    @classmethod
    def of_model(cls, model: str) -> NamedModel:
        """Return the trunk of the folder ``model``: its ``config.json``, ``preprocessor_config.json`` and weights.

        The weights are ``model.safetensors``, or else an index of shards or ``pytorch_model.bin``.

        Raises:
            DataNotFound: the folder has no ``config.json``.
            InvalidValue: it is not a configuration of an image encoder.
        """
        trunk = transformers_trunk(model)
        size = getattr(config_of(trunk.config), "image_size", None) or USUAL_SIDE
        content = _read(Path(model) / CONFIG)
        found = None if content is None else read_config(content)
        pixels = None if found is None else Preprocessing(*found)
        side = size if isinstance(size, int) else size[0]
        files = [Path(model) / name for name in _WEIGHTS]
        trunk = _for_any_size(trunk, side)
        return NamedModel(trunk, side, pixels, str(next((file for file in files if file.exists()), files[0])))

    def problems(self) -> Iterable[Problem]:
        """Yield a configuration that cannot be read, and sizes that are not positive."""
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_extra", self.num_extra, 0, limits.WIDTH)
        try:
            config_of(self.config)
        except FAULTS as error:
            problem = f"is not the JSON of a configuration of transformers: {error}; got {shown(self.config)}"
            yield Problem("config", problem)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why the model cannot read images of ``grid``."""
        hint = "" if self.interpolate else "; images of other sizes than the configuration's need interpolate=True"
        return (problem + hint for problem in reading_problems(self, grid))

    def build(self) -> TransformersModule:
        """Build the module with fresh weights.

        Raises:
            InvalidValue: transformers cannot build the model.
        """
        return TransformersModule(self)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a state dictionary of the model, or of one with a head around it."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = built_model(config_of(self.config))
        own = list(model.state_dict())
        state = with_present_names(model, state)
        # A model with a head has the encoder below a name such as "vit.".
        prefix = next((name.removesuffix(own[0]) for name in state if name.endswith(f".{own[0]}")), "")
        inside = {name.removeprefix(prefix): value for name, value in state.items()}
        return below_model(inside, [head for head in _HEADS if not any(name.startswith(head) for name in own)])

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return a tiny Vision Transformer with a class token."""
        config = {
            "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "image_size": 12, "patch_size": 4,
        }  # fmt: skip
        return (cls(config=json.dumps(config), patch_size=4, num_extra=1, interpolate=True),)


def transformers_trunk(folder: str | Path) -> TransformersTrunk:
    """Return the trunk of the ``config.json`` in ``folder``, with the patch size and extra tokens that it has.

    Raises:
        DataNotFound: the file cannot be read.
        InvalidValue: it is not a configuration of an image encoder, or has two towers.
    """
    path = Path(folder) / "config.json"
    try:
        text = path.read_text()
        content = json.dumps(json.loads(text), sort_keys=True)
    except (OSError, ValueError) as cause:
        hint = "" if Path(folder).is_dir() else "; transformers: takes the path of a folder, and downloads nothing"
        raise DataNotFound(f"cannot read {path}: {cause}{hint}") from cause
    try:
        config = config_of(content)
    except FAULTS as cause:
        raise InvalidValue(str(path), [("config", f"is not a configuration of transformers: {cause}")]) from cause
    if config.model_type in NAFLEX:
        raise InvalidValue(str(path), [("config", NO_NAFLEX)])
    if getattr(config, "vision_config", None) is not None:
        problem = f"describes two towers: give the folder itself, {folder}, without 'transformers:'"
        raise InvalidValue(str(path), [("config", problem)])
    return _with_sizes(content, config)


def image_tower_trunk(config: Any, *, head: bool = True) -> TransformersTrunk:
    """Return the trunk of the image tower in a configuration of two towers; its positions are interpolated.

    Args:
        config: a configuration of transformers with a ``vision_config``.
        head: whether the tower keeps its pooling head, where the configuration can leave it out.

    Raises:
        InvalidValue: transformers cannot build the tower.
    """
    part = config.vision_config
    values = {name: value for name, value in part.to_diff_dict().items() if name not in _INCIDENTAL}
    values |= {"model_type": part.model_type} | ({} if head else {"vision_use_head": False})
    content = json.dumps(values, sort_keys=True)
    return cast(TransformersTrunk, attrs.evolve(cast(Any, _with_sizes(content, config_of(content))), interpolate=True))


def _with_sizes(content: str, config: Any) -> TransformersTrunk:
    """Read an image without numbers, to find the pixels per token and the number of other tokens."""
    try:
        side, output = read_on_meta(config)
    except FAULTS as cause:
        problem = f"transformers cannot read images with this model ({type(cause).__name__}: {cause})"
        raise InvalidValue("TransformersTrunk", [("config", problem)]) from cause
    if output.dim() == 4:
        return TransformersTrunk(config=content, patch_size=side // int(output.shape[-1]))
    tokens, rows, stated = int(output.shape[1]), isqrt(output.shape[1]), getattr(config, "patch_size", None)
    patch_size = side // rows
    if isinstance(stated, int) and stated > 0:
        stated_extra = (int(getattr(config, name, 0)) for name in ("num_register_tokens", "n_cls_tokens"))
        most_extra = 2 + sum(stated_extra)  # class, distillation and register tokens
        # Of 384 px, patches of 14 px leave out the last six. A stage that merges tokens has fewer than stated.
        if 0 <= tokens - (side // stated) ** 2 <= most_extra:
            patch_size, rows = stated, side // stated
    return TransformersTrunk(config=content, patch_size=patch_size, num_extra=tokens - rows**2)


def _for_any_size(trunk: TransformersTrunk, image_size: int) -> TransformersTrunk:
    """Return the trunk with interpolated positions, if images of other sizes than ``image_size`` need that."""
    rows = image_size // trunk.patch_size + 1
    larger, interpolating = (
        PatchGrid(rows, rows),
        cast(TransformersTrunk, attrs.evolve(cast(Any, trunk), interpolate=True)),
    )
    needs_it = any(trunk.problems_with(larger)) and not any(interpolating.problems_with(larger))
    return interpolating if needs_it else trunk


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


class TransformersModule(ForeignModule):
    """The module of :class:`TransformersTrunk`."""

    def __init__(self, config: TransformersTrunk) -> None:
        settings = config_of(config.config)
        try:
            model = built_model(settings)
            side, output = read_on_meta(settings)
        except FAULTS as error:
            problem = f"transformers cannot build the model: {error}"
            raise InvalidValue("TransformersTrunk", [("config", problem)]) from error
        blocks = blocks_of(model, settings)
        super().__init__(
            width=width_of(output, side // config.patch_size),
            depth=len(blocks) or 1,
            patch_size=config.patch_size,
            num_channels=int(getattr(settings, "num_channels", 3)),
            num_extra=config.num_extra,
        )
        exempt_vectors_from_decay(model)
        self.model = model
        self._blocks = blocks
        self._options = {"interpolate_pos_encoding": True} if config.interpolate else {}
        self._masks = settings.model_type == MAE
        heads = getattr(settings, "num_attention_heads", None)
        self.num_heads = heads if isinstance(heads, int) else None
        self.library = f"transformers {version('transformers')}, {type(model).__name__}"

    def blocks_to_recompute(self) -> tuple[nn.Module, ...]:
        """Return the model's blocks; none if they are not one list."""
        return tuple(self.model.get_submodule(name) for name in self._blocks)

    def read(self, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Outputs:
        """Return the last hidden state, and outputs of blocks."""
        names = [self._blocks[layer] for layer in layers] if self._blocks else []
        with outputs_of(self.model, names) as found:
            final = self.model(pixel_values=pixels_BCHW, **self._options, **self._order(pixels_BCHW)).last_hidden_state
        return Outputs(final, tuple(found[name] for name in names) if self._blocks else (final,) * len(layers))

    def _order(self, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        """Return what keeps patches in raster order: MAE sorts them by noise, which is random by default."""
        if not self._masks:
            return {}
        rows, columns = (side // self.patch_size for side in pixels_BCHW.shape[2:])
        noise_N = torch.arange(rows * columns, dtype=torch.float32, device=pixels_BCHW.device)
        return {"noise": noise_N.expand(len(pixels_BCHW), -1)}
