"""AIMv2's encoders in the layouts of other libraries: transformers, timm, flax and MLX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_maps import TensorTable
from aimcore.io.preprocessor_files import CLIP
from aimcore_layouts.authors import AIMv2Authors, aimv2_model
from aimcore_layouts.tables import authors_encoder, in_flax, in_mlx, timm_encoder, transformers_encoder


@component("aimv2_transformers", paper="arXiv:2411.14402")
class AIMv2Transformers(AIMv2Authors):
    """AIMv2's encoder in the library transformers, as on the main branch of the released repositories."""

    @property
    def title(self) -> str:
        """What it is."""
        return "AIMv2, as in transformers"

    @property
    def table(self) -> TensorTable:
        """The encoder; learned positions are a group."""
        return _TRANSFORMERS

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT."""
        return aimv2_model(self.read(tensors), (config or {}).get("num_attention_heads"), given)


@component("aimv2_timm", paper="arXiv:2411.14402")
class AIMv2Timm(AIMv2Authors):
    """AIMv2's encoder in the library timm, as in its mirrors of the released models."""

    @property
    def title(self) -> str:
        """What it is."""
        return "AIMv2, as in timm"

    @property
    def table(self) -> TensorTable:
        """The encoder; learned positions are a group."""
        return _TIMM

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


@component("aimv2_flax", paper="arXiv:2411.14402")
class AIMv2Flax(AIMv2Authors):
    """AIMv2's encoder in flax: ``flax_model.msgpack``. Requires the extra ``flax``."""

    @property
    def title(self) -> str:
        """What it is."""
        return "AIMv2, as in flax"

    @property
    def table(self) -> TensorTable:
        """The encoder; learned positions are a group."""
        return _FLAX


@component("aimv2_mlx", paper="arXiv:2411.14402")
class AIMv2MLX(AIMv2Authors):
    """AIMv2's encoder in MLX: the authors' names, with the channels of the patch convolution last."""

    @property
    def title(self) -> str:
        """What it is."""
        return "AIMv2, as in MLX"

    @property
    def table(self) -> TensorTable:
        """The encoder; learned positions are a group."""
        return _MLX


_TRANSFORMERS = TensorTable(tuple(transformers_encoder()))
_TIMM = TensorTable(tuple(timm_encoder()))
_ENCODER = tuple(authors_encoder(swiglu=True, norm_bias=False, learned=True))
_FLAX = TensorTable(tuple(in_flax(_ENCODER)))
_MLX = TensorTable(tuple(in_mlx(_ENCODER)))
