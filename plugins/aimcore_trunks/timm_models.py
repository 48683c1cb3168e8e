"""Encoders of timm as trunks. It is a plugin of its own, because it requires the extra ``timm``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from math import isqrt
from typing import Any, Self, cast

import attrs
import torch
from torch import Tensor, nn

from aimcore import InvalidValue, PatchGrid, Preprocessing, Problem, Trunk, at_least, component, hookimpl
from aimcore.contracts import limits
from aimcore.contracts.messages import did_you_mean
from aimcore.contracts.trunks import NamedModel
from aimcore_trunks.efficientnet_lite import from_efficientnet_lite, is_efficientnet_lite
from aimcore_trunks.foreign import FAULTS, ForeignModule, Outputs, below_model, outputs_of, reading_problems
from aimcore_trunks.vit_layouts import from_vit_file, is_vit_file


@hookimpl
def trunks() -> list[type[Trunk]]:
    """Supply the trunk of this module."""
    return [TimmTrunk]


@component("timm")
class TimmTrunk(Trunk):
    """Any encoder of timm, without its classifier: the baselines of arXiv:2401.08541, Table 6, and others.

    Weights are never downloaded. ``initial_weights`` takes a safetensors file of timm's ``state_dict()``; of a Vision
    Transformer in the layouts of MAE, iBOT, DINO and BEiT, which share timm's names (pre-training heads, decoders and
    mask tokens are not read); or of EfficientNet-lite as the package ``efficientnet-lite-pytorch`` stores it. Their
    pickled files are converted first: ``python -m aimcore_trunks.weight_files``.

    If all blocks have the shape of the output, as in a Vision Transformer, they are the trunk's layers. Other models
    have one layer: the output itself.
    """

    model: str
    """An architecture of ``timm.list_models()``, such as ``"vit_base_patch16_224"``."""
    patch_size: int = 16
    """Pixels per side of a token: the total stride of a convolutional network."""
    num_extra: int = 0
    """Number of tokens before those of patches: class, distillation and register tokens."""
    num_channels: int = 3
    options: Mapping[str, bool | int | float | str] = attrs.field(factory=dict)
    """Further arguments of the model, such as ``{"img_size": 224}`` or ``{"dynamic_img_size": True}``. By default
    there is neither a classifier nor pooling: ``num_classes=0`` and ``global_pool=""``."""

    @classmethod
    def of_model(cls, model: str) -> NamedModel:
        """Return the trunk of an architecture of timm, with the sizes and the preprocessing of its configuration.

        Where the model can, it reads images of any size.

        Raises:
            InvalidValue: timm has no such architecture.
        """
        return _named(cls(model=model))

    def problems(self) -> Iterable[Problem]:
        """Yield an unknown model, arguments that it refuses, and sizes that are not positive."""
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_extra", self.num_extra, 0, limits.WIDTH)
        yield from at_least("num_channels", self.num_channels, 1, limits.CHANNELS)
        import timm

        name = self.model.partition(".")[0]
        if not timm.is_model(name):
            hint = did_you_mean(name, timm.list_models()) or "; timm.list_models() names all, and none is downloaded"
            yield Problem("model", f"timm has no architecture {name!r}{hint}")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why the model cannot read images of ``grid``."""
        return reading_problems(self, grid)

    def build(self) -> TimmModule:
        """Build the module with fresh weights.

        Raises:
            InvalidValue: timm cannot build the model with these options.
        """
        return TimmModule(self)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights in the layouts that the class names.

        Raises:
            UnknownLayout: the file has entries of an unknown kind beside a known encoder.
        """
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = self.build().model
        if is_efficientnet_lite(state):
            return below_model(from_efficientnet_lite(state), ())
        own = model.state_dict()
        if is_vit_file(state) and any(name.startswith("patch_embed.proj") for name in own):
            return below_model(from_vit_file(state, list(own)), ())
        classifier = model.default_cfg.get("classifier", ()) if isinstance(model.default_cfg, Mapping) else ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
        return below_model(state, (f"{name}." for name in names))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return a tiny Vision Transformer with a class token, for any image size."""
        options: dict[str, bool | int | float | str] = {
            "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 16, "dynamic_img_size": True,
        }  # fmt: skip
        return (cls(model="vit_tiny_patch16_224", patch_size=4, num_extra=1, options=options),)


def _named(plain: TimmTrunk) -> NamedModel:
    """Read an image without numbers, to find the pixels per token and the number of other tokens."""
    any_size = attrs.evolve(cast(Any, plain), options={"dynamic_img_size": True})
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        try:
            config, model = any_size, _created(any_size).eval()
        except InvalidValue:
            config, model = plain, _created(plain).eval()
        known = model.default_cfg
        side = int(known["input_size"][-1])
        output = model.forward_features(torch.empty(1, config.num_channels, side, side))
    num_extra = int(getattr(model, "num_prefix_tokens", 0)) if output.dim() == 3 else 0
    rows = isqrt(output.shape[1] - num_extra) if output.dim() == 3 else int(output.shape[2])
    trunk = attrs.evolve(cast(Any, config), patch_size=side // rows, num_extra=num_extra)
    pixels = Preprocessing(tuple(known["mean"]), tuple(known["std"]), float(known.get("crop_pct") or 1))
    return NamedModel(trunk, side, pixels, None)


class TimmModule(ForeignModule):
    """The module of :class:`TimmTrunk`."""

    def __init__(self, config: TimmTrunk) -> None:
        model = _created(config)
        shapes = {(info["num_chs"], info["reduction"]) for info in model.feature_info}
        is_uniform = len(shapes) == 1 and hasattr(model, "blocks") and len(model.blocks) == len(model.feature_info)
        super().__init__(
            width=int(model.num_features),
            depth=len(model.blocks) if is_uniform else 1,
            patch_size=config.patch_size,
            num_channels=config.num_channels,
            num_extra=config.num_extra,
        )
        # timm has a method where this project expects a set of names.
        for part in model.modules():
            if callable(getattr(part, "no_weight_decay", None)):
                part.no_weight_decay = frozenset(part.no_weight_decay())
        attention = getattr(model.blocks[0], "attn", None) if is_uniform else None
        self.num_heads = getattr(attention, "num_heads", None)
        self.library = f"timm {version('timm')}, {config.model} ({type(model).__name__})"
        self.model = model
        self._is_uniform = is_uniform
        # The model's own forward pools and classifies. Called as the model's, this one reads parameters of the model
        # itself, such as its positions, where ZeRO stage 3 gathers them.
        self.model.forward = partial(_read, model, is_uniform)

    def blocks_to_recompute(self) -> tuple[nn.Module, ...]:
        """Return the model's blocks; none if their outputs differ in shape, as in networks with stages."""
        return tuple(self.model.blocks) if self._is_uniform else ()

    def read(self, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Outputs:
        """Return features after the final norm, and outputs of blocks."""
        outputs: Outputs = self.model(pixels_BCHW, layers)
        return outputs


def _created(config: TimmTrunk) -> Any:
    import timm

    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", "in_chans": config.num_channels, **config.options}
    try:
        return timm.create_model(config.model, pretrained=False, **options)
    except FAULTS as error:
        problem = f"timm cannot build {config.model!r} with {options}: {error}"
        raise InvalidValue("TimmTrunk", [("options", problem)]) from error


def _read(model: Any, is_uniform: bool, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Outputs:
    names = [f"blocks.{layer}" for layer in layers] if is_uniform else []
    with outputs_of(model, names) as found:
        final = model.forward_features(pixels_BCHW)
    return Outputs(final, tuple(found[name] for name in names) if is_uniform else (final,) * len(layers))
