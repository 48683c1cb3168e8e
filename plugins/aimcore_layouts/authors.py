"""The released encoders in the names of their authors' code: torch files of AIM, and old revisions of AIMv2's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
from torch import Tensor, nn

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_maps import TensorTable
from aimcore.io.preprocessor_files import CLIP, IMAGENET
from aimcore_layouts.expressible import (
    aim_problems,
    aimv2_problems,
    authors_settings,
    with_preprocessor,
    without_mask_token,
)
from aimcore_layouts.inference import UnknownSetting, heads_of, vit_of
from aimcore_layouts.probe import AttentionProbe
from aimcore_layouts.tables import authors_encoder, released_probe

AIM_EPS, AIMV2_EPS = 1e-6, 1e-5
IMAGE_SIZE = 224
"""Side of AIM's images: its positions do not say it."""
AIM_PREPROCESSINGS = (("the authors' code", IMAGENET),)
AIMV2_PREPROCESSINGS = (
    ("the released model files and timm", CLIP), ("the authors' readme and training code", IMAGENET),
)  # fmt: skip
OPENED_HERE = """\
from aimcore import load_encoder

encoder = load_encoder("FOLDER")
tokens_BND = encoder.features(encoder.transform(image).unsqueeze(0))
"""
OPENED_BY_AUTHORS = """\
import json
from aim.v2.torch.models import AIMv2VisionEncoder
from safetensors.torch import load_file

model = AIMv2VisionEncoder(**json.load(open("FOLDER/config.json")))
model.load_state_dict(load_file("FOLDER/model.safetensors"))
"""
NUM_PROBED = 6
"""Blocks that AIM's probes read by default: the last six."""


@component("aim_authors", paper="arXiv:2401.08541")
class AIMAuthors(FileLayout):
    """AIM's encoder as its authors released it, with or without an attention probe."""

    title = "AIM, as its authors released it"
    table = TensorTable((*authors_encoder(swiglu=False, norm_bias=True), *released_probe()))
    licence = "apple-ascl"
    target: ClassVar[str | None] = "apple"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT, and the probe if its tensors are there."""
        state = self.read(tensors)
        config = config or {}
        width = state["trunk.norm.weight"].shape[0]
        trunk = vit_of(state, heads_of(width, given.num_heads, config.get("num_heads")), norm_eps=AIM_EPS)
        probe, layers, advice = probe_of(state, trunk.num_heads, trunk.depth, config, given)
        size = given.image_size or config.get("img_size") or IMAGE_SIZE
        settings = {"num_heads": trunk.num_heads, "probe_layers": layers, "image_size": _side(size)}
        return StoredModel(
            trunk=trunk, probe=probe, probe_layers=layers, image_size=_side(size), settings=settings, advice=advice
        )

    def explain(self, tensors: Tensors) -> str | None:
        """Explain a released attention probe without its trunk."""
        if tensors.keys() and all(name.startswith("head.") for name in tensors) and "head.cls_token" in tensors:
            return (
                "it is an attention probe of AIM without its trunk. Open both: load_encoder(BACKBONE, head=THIS_FILE), "
                "with probe_layers= if it is a probe of the 'best' blocks"
            )
        return None

    def stated(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the sizes in the config of the authors' later repositories."""
        return authors_config(config)

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """ImageNet's: nothing contradicts it."""
        return AIM_PREPROCESSINGS

    def write(self, state: Tensors) -> dict[str, Tensor]:
        """Write the file, without a mask token."""
        return super().write(without_mask_token(state))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield departures from AIM's form."""
        return aim_problems(model.trunk, AIM_EPS)

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the arguments of the authors' constructor, with the blocks that a probe reads."""
        settings = authors_settings(model, aimv2=False)
        if model.probe is not None:
            settings |= {"probe_layers": list(model.probe_layers)}
        return with_preprocessor(settings, model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it here."""
        return OPENED_HERE


@component("aimv2_authors", paper="arXiv:2411.14402")
class AIMv2Authors(FileLayout):
    """AIMv2's encoder as its authors released it first, with learned positions or (native resolution) without."""

    title = "AIMv2, as its authors released it"
    table = TensorTable(tuple(authors_encoder(swiglu=True, norm_bias=False, learned=True)))
    licence = "apple-ascl"
    target: ClassVar[str | None] = "apple"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT."""
        config = config or {}
        side = _side(config.get("img_size"))
        if given.image_size is None and type(side) is int and side > 0:
            given = attrs.evolve(given, image_size=side)
        return aimv2_model(self.read(tensors), config.get("num_heads", config.get("num_attention_heads")), given)

    def stated(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings in a config, in the names of the authors' code or of transformers.

        The authors' files were first published with a config in the names of transformers.
        """
        return authors_config(config) | transformers_config(config)

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """Both that are published."""
        return AIMV2_PREPROCESSINGS

    def write(self, state: Tensors) -> dict[str, Tensor]:
        """Write the file, without a mask token."""
        return super().write(without_mask_token(state))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield departures from AIMv2's form."""
        return aimv2_problems(model.trunk, AIMV2_EPS)

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the arguments of the authors' constructor."""
        return with_preprocessor(authors_settings(model, aimv2=True), model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in the authors' code."""
        return OPENED_BY_AUTHORS


def aimv2_model(state: Tensors, stated_heads: object, given: GivenSettings, norm_eps: float = AIMV2_EPS) -> StoredModel:
    """Return an AIMv2 encoder by our names. Without learned positions it reads native resolutions."""
    width = state["trunk.norm.weight"].shape[0]
    trunk = vit_of(state, heads_of(width, given.num_heads, stated_heads), norm_eps=norm_eps)
    size = None if trunk.grid is None else trunk.grid[0] * trunk.patch_size
    size = size or given.image_size
    return StoredModel(trunk=trunk, image_size=size, settings={"num_heads": trunk.num_heads, "image_size": size})


def probe_of(
    state: Tensors, num_heads: int, depth: int, config: Mapping[str, Any], given: GivenSettings
) -> tuple[Callable[[], nn.Module] | None, tuple[int, ...], tuple[str, ...]]:
    """Return a builder of the probe in ``state``, the blocks that it reads, and advice.

    Raises:
        UnknownSetting: the blocks do not exist.
    """
    stated = given.probe_layers if given.probe_layers is not None else config.get("probe_layers")
    layers = tuple(range(max(0, depth - NUM_PROBED), depth)) if stated is None else _layers(stated, depth)
    if "probe.query" not in state:
        return None, layers, ()
    classes, width = state["probe.classifier.weight"].shape
    advice = () if stated is not None else (
        "nothing says which blocks the attention probe in this file reads. The last six are used, as in the authors' "
        "code; their 'best' probes read others (probe_layers=)",
    )  # fmt: skip
    return partial(AttentionProbe, width, num_heads, classes), layers, advice


def authors_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a config in the names of the authors' code states."""
    names = {"embed_dim": "width", "num_blocks": "depth", "num_heads": "num_heads", "num_channels": "num_channels",
             "mlp_hidden_dim": "hidden_width"}  # fmt: skip
    stated = {f"trunk.{ours}": config[theirs] for theirs, ours in names.items() if theirs in config}
    if "patch_size" in config:
        stated["trunk.patch_size"] = _side(config["patch_size"])
    if "img_size" in config:
        stated["image_size"] = _side(config["img_size"])
    return stated


def transformers_config(config: Mapping[str, Any], path: str = "trunk") -> dict[str, Any]:
    """Return the settings that a config of transformers' AIMv2 states, for the model part at ``path``."""
    names = {
        "hidden_size": "width", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
        "intermediate_size": "hidden_width", "patch_size": "patch_size", "num_channels": "num_channels",
        "rms_norm_eps": "norm_eps", "qkv_bias": "attention_bias", "mlp_bias": "ffn_bias",
    }  # fmt: skip
    stated = {f"{path}.{ours}": config[theirs] for theirs, ours in names.items() if theirs in config}
    if f"{path}.patch_size" in stated:
        stated[f"{path}.patch_size"] = _side(config["patch_size"])
    if "image_size" in config and not config.get("is_native", False):
        stated["image_size"] = _side(config["image_size"])
    return stated


def _side(size: Any) -> Any:
    """Return one side of a size that may be two equal numbers."""
    return size[0] if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1] else size


def _layers(stated: Any, depth: int) -> tuple[int, ...]:
    """Return blocks by their numbers; a single number means so many last blocks, as in the authors' code."""
    layers = tuple(range(depth - stated, depth)) if type(stated) is int else tuple(stated)
    if not layers or not all(type(layer) is int and 0 <= layer < depth for layer in layers):
        raise UnknownSetting(f"probe_layers must be blocks from 0 to {depth - 1}, got {stated!r}")
    return layers
