"""AIMv2's encoders in the layouts of other libraries: transformers, timm, flax and MLX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import GivenSettings, StoredModel, Tensors
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_maps import TensorTable
from aimcore.io.preprocessor_files import CLIP
from aimcore_layouts.authors import AIMV2_EPS, AIMv2Authors, aimv2_model
from aimcore_layouts.expressible import aimv2_problems, transformers_vision_settings, vit_in, with_preprocessor
from aimcore_layouts.inference import UnknownSetting
from aimcore_layouts.tables import authors_encoder, in_flax, in_mlx, timm_encoder, transformers_encoder
from aimcore_layouts.timm_names import architecture, timm_config

_ENCODER = tuple(authors_encoder(swiglu=True, norm_bias=False, learned=True))


@component("aimv2_transformers", paper="arXiv:2411.14402")
class AIMv2Transformers(AIMv2Authors):
    """AIMv2's encoder in the library transformers, as on the main branch of the released repositories."""

    title = "AIMv2, as in transformers"
    table = TensorTable(tuple(transformers_encoder()))
    target: ClassVar[str | None] = "transformers"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT."""
        config = config or {}
        eps = config.get("rms_norm_eps", AIMV2_EPS)
        return aimv2_model(self.read(tensors), config.get("num_attention_heads"), given, _epsilon(eps))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield departures from AIMv2's form; the epsilon of norms is in the config."""
        return aimv2_problems(model.trunk)

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the config of transformers' ``Aimv2VisionModel``, without its attention pool."""
        settings = {"architectures": ["Aimv2VisionModel"], "dtype": "float32"}
        return with_preprocessor(settings | transformers_vision_settings(model, head=False), model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in transformers."""
        return _BY_TRANSFORMERS


@component("aimv2_timm", paper="arXiv:2411.14402")
class AIMv2Timm(AIMv2Authors):
    """AIMv2's encoder in the library timm, as in its mirrors of the released models."""

    title = "AIMv2, as in timm"
    table = TensorTable(tuple(timm_encoder()))
    target: ClassVar[str | None] = "timm"
    shards = False

    def stated(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the width in a config of timm."""
        return {"trunk.width": config["num_features"]} if "num_features" in config else {}

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT."""
        options = (config or {}).get("model_args")
        stated = options.get("num_heads") if isinstance(options, Mapping) else None
        return aimv2_model(self.read(tensors), stated, given)

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """CLIP's, which timm uses for all of them."""
        return (("timm", CLIP),)

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield departures from AIMv2's form with learned positions."""
        return aimv2_problems(model.trunk, AIMV2_EPS, native=False)

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the config of timm, which states the preprocessing too."""
        return {"config.json": timm_config(model, preprocessing)}

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in timm."""
        name, arguments = architecture(vit_in(model))
        options = "".join(f", {name}={value!r}" for name, value in arguments.items())
        return (
            'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True)\n'
            f'# or: timm.create_model("{name}", checkpoint_path="FOLDER/model.safetensors"{options})\n'
            "tokens_BND = model.forward_features(images_BCHW)\n"
        )


@component("aimv2_flax", paper="arXiv:2411.14402")
class AIMv2Flax(AIMv2Authors):
    """AIMv2's encoder in flax: ``flax_model.msgpack``. Requires the extra ``flax``."""

    title = "AIMv2, as in flax"
    table = TensorTable(tuple(in_flax(_ENCODER)))
    target: ClassVar[str | None] = None


@component("aimv2_mlx", paper="arXiv:2411.14402")
class AIMv2MLX(AIMv2Authors):
    """AIMv2's encoder in MLX: the authors' names, with the channels of the patch convolution last."""

    title = "AIMv2, as in MLX"
    table = TensorTable(tuple(in_mlx(_ENCODER)))
    target: ClassVar[str | None] = None


def _epsilon(stated: object) -> float:
    """Return the epsilon of norms that a config states.

    Raises:
        UnknownSetting: it is no positive number.
    """
    if not isinstance(stated, int | float) or not 0 < stated < 1:
        raise UnknownSetting(f"rms_norm_eps must be between 0 and 1, got {shown(stated)}")
    return float(stated)


_BY_TRANSFORMERS = """\
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
tokens_BND = model(**processor(images=image, return_tensors="pt")).last_hidden_state
"""
