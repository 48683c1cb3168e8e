"""Vision encoders of the library transformers, without the other parts of their models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import torch

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_maps import TableFit, TensorMap, TensorTable
from aimcore_layouts.expressible import with_preprocessor, without_origin
from aimcore_layouts.inference import UnknownSetting
from aimcore_trunks.transformers_building import MAE, built_model, config_of
from aimcore_trunks.transformers_models import TransformersTrunk
from aimcore_trunks.transformers_names import names_in_files


@component("transformers_vision")
class TransformersVision(FileLayout):
    """What transformers' ``save_pretrained`` writes of the model in a trunk ``transformers``.

    Names of tensors depend on the model, so that no file is recognised by them: ``transformers:FOLDER`` opens it by its
    configuration.
    """

    title = "a vision encoder, as in transformers"
    table = TensorTable(())
    target: ClassVar[str | None] = "transformers"

    def fit(self, tensors: Tensors) -> TableFit:
        """Fit no file."""
        return TableFit(known=0, unknown=tuple(tensors), missing=("its configuration",), misshapen=())

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Refuse all tensors, which fit no model without their names.

        Raises:
            UnknownSetting: always.
        """
        raise UnknownSetting("the tensors do not say which model they are of: give the folder as transformers:FOLDER")

    def for_model(self, model: StoredModel) -> FileLayout:
        """Return the layout of the files of the model's trunk."""
        return FilesOfTrunk(trunk=_trunk_of(model))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield a trunk that is not one of transformers, and parts around it."""
        if not isinstance(model.trunk, TransformersTrunk):
            yield f"its trunk {model.trunk.name!r} is not a model of transformers"
        if model.objective is not None or model.probe is not None:
            around = "a probe" if model.objective is None else f"the other parts of {model.objective.name!r}"
            yield f"it has {around} around the trunk"

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the configuration of the trunk, and the preprocessing."""
        trunk = _trunk_of(model)
        found = without_origin(json.loads(trunk.config))
        config = {"architectures": [type(_on_meta(trunk)).__name__], **found, "dtype": "float32"}
        return with_preprocessor(config, model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in transformers, and reads an image as the trunk does."""
        trunk = _trunk_of(model)
        settings = config_of(trunk.config)
        opening, reading, first = "", "", ""
        if _lacks_pooler(trunk):
            opening = ", add_pooling_layer=False"
        if trunk.interpolate and model.image_size not in (None, getattr(settings, "image_size", None)):
            reading = ", interpolate_pos_encoding=True"
        if settings.model_type == MAE:  # it drops patches and sorts the others by noise
            rows = (model.image_size or settings.image_size) // trunk.patch_size
            opening, first = ", mask_ratio=0.0", "import torch\n"
            reading += f", noise=torch.arange({rows**2}.0)[None]"
        return first + _USAGE.format(opening=opening, reading=reading)


@component("transformers_vision_of_trunk")
class FilesOfTrunk(TransformersVision):
    """The files of one trunk. It is not listed, because its names depend on the trunk."""

    trunk: TransformersTrunk

    @property
    def table(self) -> TensorTable:  # type: ignore[override]
        """The names of the trunk's tensors in files."""
        names = names_in_files(_on_meta(self.trunk))
        return TensorTable(tuple(TensorMap(theirs, (f"trunk.model.{own}",)) for own, theirs in names.items()))

    def fit(self, tensors: Tensors) -> TableFit:
        """Compare names."""
        return self.table.fit(tensors)

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the trunk."""
        return StoredModel(trunk=self.trunk, image_size=given.image_size)


def _trunk_of(model: StoredModel) -> TransformersTrunk:
    assert isinstance(model.trunk, TransformersTrunk), "a layout refuses other trunks"
    return model.trunk


def _on_meta(trunk: TransformersTrunk) -> Any:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return built_model(config_of(trunk.config))


def _lacks_pooler(trunk: TransformersTrunk) -> bool:
    """Whether ``AutoModel`` builds the model with a pooler, which the trunk leaves out."""
    from transformers import AutoModel

    build: Any = AutoModel.from_config
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = build(config_of(trunk.config))
    return len(cast(Mapping[str, Any], whole.state_dict())) > len(_on_meta(trunk).state_dict())


_USAGE = """\
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("FOLDER"{opening})
processor = AutoImageProcessor.from_pretrained("FOLDER")
tokens = model(**processor(images=image, return_tensors="pt"){reading}).last_hidden_state
"""
