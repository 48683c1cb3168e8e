"""CLIP and SigLIP in the library transformers, with both towers. Requires the extra ``transformers``."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from packaging.version import Version
from torch import Tensor

from aimcore import AimcoreError, TextTokenizer, component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_forms import SAME, Scalar, TensorForm
from aimcore.contracts.tensor_maps import TableFit, TensorMap, TensorTable
from aimcore.io.preprocessor_files import CLIP
from aimcore_layouts.expressible import with_preprocessor, without_origin
from aimcore_layouts.inference import UnknownSetting
from aimcore_layouts.tokenizers_beside import TOKENIZER_CONFIG, sentencepiece_beside, tokenizer_beside
from aimcore_objectives import TransformersTowers
from aimcore_tokenizers import GivenIds
from aimcore_trunks.foreign import FAULTS
from aimcore_trunks.transformers_building import config_of
from aimcore_trunks.transformers_models import NAFLEX, NO_NAFLEX, TransformersTrunk, image_tower_trunk

_SIGLIP = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1.0)
_COUNTED = "embeddings.position_ids"
"""Numbers from 0 on, which files of earlier versions hold and every module computes."""
_KINDS = ("weight", "bias")


class MissingTransformers(AimcoreError):
    """The optional library transformers is needed, and is missing or too old."""


class _Towers(FileLayout):
    """A model of two towers, which transformers builds from its ``config.json``."""

    __slots__ = ()
    family: ClassVar[str]
    """The ``model_type`` in the configuration."""
    names: ClassVar[str]
    """What the classes of transformers begin with."""
    target: ClassVar[str | None] = "transformers"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the image tower as a trunk, and the objective that has the other parts.

        Raises:
            UnknownSetting: there is no ``config.json``, or it describes another model.
            MissingTransformers: transformers is missing or too old.
        """
        _require_transformers()
        text = given.config if given.config is not None else self._content(config)
        try:
            settings = config_of(text)
        except FAULTS as cause:
            raise UnknownSetting(f"the config.json is not a configuration of transformers: {shown(cause)}") from cause
        trunk = self._image_tower(settings)
        towers = TransformersTowers(
            config=text,
            tokenizer=given.tokenizer or self.tokenizer(settings, given.url),
            context_length=settings.text_config.max_position_embeddings,
        )
        # A stand-in is not recorded: a tokenizer may be put next to the file later.
        known = None if isinstance(towers.tokenizer, GivenIds) else towers.tokenizer
        return StoredModel(
            trunk=trunk, objective=towers, image_size=settings.vision_config.image_size,
            settings={"config": text, "tokenizer": known},
        )  # fmt: skip

    @abstractmethod
    def tokenizer(self, settings: Any, url: str | None) -> TextTokenizer:
        """Return the tokenizer next to the weights, or a stand-in."""

    def fit(self, tensors: Tensors) -> TableFit:
        """Compare names and shapes; numbers of positions do not count."""
        return super().fit(_without_counts(tensors))

    def read(self, tensors: Tensors) -> dict[str, Tensor]:
        """Convert all tensors but the numbers of positions."""
        return super().read(_without_counts(tensors))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield other towers, a trunk that is not the image tower, and images that transformers does not read."""
        objective = model.objective
        settings = config_of(objective.config) if isinstance(objective, TransformersTowers) else None
        if settings is None or settings.model_type != self.family:
            yield "it has no such towers"
            return
        trunk, tower = model.trunk, self._image_tower(settings)
        if not isinstance(trunk, TransformersTrunk) or trunk.config != tower.config:
            yield f"its trunk {trunk.name!r} is not the image tower in the configuration of its towers"
        yield from self.size_problems(model.image_size, settings.vision_config.image_size, tower.patch_size)

    def size_problems(self, size: int | None, own: int, patch_size: int) -> Iterable[str]:
        """Yield why transformers does not read images of ``size`` pixels with positions for ``own`` pixels."""
        if size is None or size // patch_size != own // patch_size:
            read = "images of any size" if size is None else f"images of {size} px"
            yield f"it reads {read}, with positions interpolated from those for {own} px; give images of {own} px"

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the configuration that the model came with, and the preprocessing."""
        objective = model.objective
        assert isinstance(objective, TransformersTowers), "a layout refuses other objectives"
        found = without_origin(json.loads(objective.config))
        config = {"architectures": [f"{self.names}Model"], **found, "dtype": "float32"}
        return with_preprocessor(config, model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in transformers; of a model whose tokenizer is unknown, with ids of texts."""
        reads = None if model.objective is None else model.objective.text
        is_known = reads is not None and not isinstance(reads[0], GivenIds)
        return _BY_TRANSFORMERS if is_known else _BY_TRANSFORMERS_WITH_IDS

    def _image_tower(self, settings: Any) -> TransformersTrunk:
        return image_tower_trunk(settings, head=self.family != "siglip")

    def _content(self, config: Mapping[str, Any] | None) -> str:
        if config is None:
            raise UnknownSetting(
                f"weights of {self.family} do not say which model they are of: put its config.json next to them"
            )
        if config.get("model_type") in NAFLEX:
            raise UnknownSetting(NO_NAFLEX)
        if config.get("model_type") != self.family:
            raise UnknownSetting(
                f"the tensors are those of {self.family}, and the config.json next to them says model_type "
                f"{shown(config.get('model_type'))}"
            )
        return json.dumps(config, sort_keys=True)


def _without_counts(tensors: Tensors) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.endswith(_COUNTED)}


def _require_transformers() -> None:
    try:
        found = version("transformers")
    except PackageNotFoundError as cause:
        raise MissingTransformers(
            "files of CLIP and SigLIP need the package transformers: pip install 'aimcore[transformers]'"
        ) from cause
    if Version(found) < Version("5"):
        raise MissingTransformers(f"files of CLIP and SigLIP need transformers 5 or later, and {found} is installed")


def _rules(
    theirs: str, ours: str, names: Sequence[str], kinds: Sequence[str] = _KINDS, form: TensorForm = SAME
) -> Iterator[TensorMap]:
    """Yield rules of parts that have the same names in the file and in the model."""
    for name in names:
        yield from (TensorMap(f"{theirs}{name}.{kind}", (f"{ours}{name}.{kind}",), form) for kind in kinds)


def _blocks(theirs: str, ours: str) -> Iterator[TensorMap]:
    attention = (f"self_attn.{part}_proj" for part in ("q", "k", "v", "out"))
    parts = (*attention, "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
    yield from _rules(f"{theirs}encoder.layers.{{i}}.", f"{ours}encoder.layers.{{i}}.", parts)


def _text_tower() -> Iterator[TensorMap]:
    theirs, ours = "text_model.", "text_tower.model."
    yield from _rules(theirs, ours, ("embeddings.token_embedding", "embeddings.position_embedding"), ("weight",))
    yield from _blocks(theirs, ours)
    yield from _rules(theirs, ours, ("final_layer_norm",))


def _clip() -> Iterator[TensorMap]:
    theirs, ours = "vision_model.", "trunk.model."
    yield from _text_tower()
    yield TensorMap(f"{theirs}embeddings.class_embedding", (f"{ours}embeddings.class_embedding",))
    yield from _rules(theirs, ours, ("embeddings.patch_embedding", "embeddings.position_embedding"), ("weight",))
    yield from _rules(theirs, ours, ("pre_layrnorm", "post_layernorm"))
    yield from _blocks(theirs, ours)
    yield TensorMap("visual_projection.weight", ("image_tower.project.weight",))
    yield TensorMap("text_projection.weight", ("text_tower.project.weight",))
    yield TensorMap("logit_scale", ("scale.log_scale",), Scalar())


def _siglip() -> Iterator[TensorMap]:
    theirs, ours = "vision_model.", "trunk.model."
    yield from _text_tower()
    yield from _rules("text_model.", "text_tower.model.", ("head",))
    yield from _rules(theirs, ours, ("embeddings.position_embedding",), ("weight",))
    yield from _rules(theirs, ours, ("embeddings.patch_embedding", "post_layernorm"))
    yield from _blocks(theirs, ours)
    yield TensorMap(f"{theirs}head.probe", ("image_tower.head.probe",))
    for kind in _KINDS:
        yield TensorMap(f"{theirs}head.attention.in_proj_{kind}", (f"image_tower.head.attention.in_proj_{kind}",))
    yield from _rules(
        theirs, "image_tower.", ("head.attention.out_proj", "head.layernorm", "head.mlp.fc1", "head.mlp.fc2")
    )
    yield TensorMap("logit_scale", ("scale.log_scale",))
    yield TensorMap("logit_bias", ("scale.bias",))


@component("clip_transformers")
class CLIPTransformers(_Towers):
    """CLIP (arXiv:2103.00020) in the library transformers: an image tower, a text tower, and the temperature."""

    family: ClassVar[str] = "clip"
    names: ClassVar[str] = "CLIP"
    title = "CLIP (image and text tower), as in transformers"
    table = TensorTable(tuple(_clip()))

    def tokenizer(self, settings: Any, url: str | None) -> TextTokenizer:
        """Return the ``tokenizer.json`` next to the weights. The last id ends a text."""
        size = settings.text_config.vocab_size
        return tokenizer_beside(url, size, size - 1)

    def size_problems(self, size: int | None, own: int, patch_size: int) -> Iterable[str]:
        """Yield any other size than that of the positions, which transformers' CLIP refuses."""
        yield from super().size_problems(size, own, patch_size)
        if own % patch_size:
            yield f"its images of {own} px do not divide into patches of {patch_size} px; here they are cut"

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """Those of the released models."""
        return (("CLIP's authors", CLIP),)


@component("siglip_transformers")
class SigLIPTransformers(_Towers):
    """SigLIP (arXiv:2303.15343) in the library transformers, and SigLIP 2 of fixed image sizes."""

    family: ClassVar[str] = "siglip"
    names: ClassVar[str] = "Siglip"
    title = "SigLIP (image and text tower), as in transformers"
    table = TensorTable(tuple(_siglip()))

    def tokenizer(self, settings: Any, url: str | None) -> TextTokenizer:
        """Return the ``spiece.model`` or ``tokenizer.json`` next to the weights."""
        return sentencepiece_beside(url, settings.text_config.vocab_size)

    def tokenizer_files(self, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return the files; the tokenizer returns no mask, because SigLIP was trained to attend to padding."""
        if TOKENIZER_CONFIG not in files:
            return files
        config = {**json.loads(files[TOKENIZER_CONFIG]), "model_input_names": ["input_ids"]}
        return {**files, TOKENIZER_CONFIG: (json.dumps(config, indent=2) + "\n").encode()}

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """Those of the released models."""
        return (("SigLIP's authors", _SIGLIP),)


_BY_TRANSFORMERS = """\
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER")
inputs = processor(images=image, text=["a cat", "a dog"], padding="max_length", truncation=True, return_tensors="pt")
logits = model(**inputs).logits_per_image
"""
_BY_TRANSFORMERS_WITH_IDS = """\
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
# The tokenizer is unknown: ids_BT are the ids of texts, padded at the end. SigLIP needs them as long as its positions.
logits = model(input_ids=ids_BT, **processor(images=image, return_tensors="pt")).logits_per_image
"""
