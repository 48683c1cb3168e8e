"""AIMv2's LiT model, with both towers, in all layouts in which it exists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_forms import LeadingOnes, Scalar
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore_layouts.authors import AIMV2_EPS, AIMV2_PREPROCESSINGS, aimv2_model, transformers_config
from aimcore_layouts.expressible import (
    aimv2_problems,
    authors_towers,
    tower_problems,
    transformers_towers,
    with_preprocessor,
    without_mask_token,
)
from aimcore_layouts.inference import depth_of, heads_of
from aimcore_layouts.tables import in_flax, in_mlx, lit_towers, transformers_blocks, transformers_encoder
from aimcore_layouts.tokenizers_beside import tokenizer_beside
from aimcore_objectives import Contrastive
from aimcore_objectives.towers import TextTower
from aimcore_tokenizers import GivenIds


def _transformers_towers() -> Iterator[TensorMap]:
    image, text = "vision_model.", "text_model."
    yield from transformers_encoder(image)
    yield TensorMap(f"{image}head.cls_token", ("image_tower.query",), LeadingOnes(2))
    for theirs, own in {"k_proj.weight": "key.weight", "v_proj.weight": "value.weight"}.items():
        yield TensorMap(f"{image}head.{theirs}", (f"image_tower.{own}",))
    for kind in ("weight", "bias"):
        yield TensorMap(f"{image}head.output_proj.{kind}", (f"image_tower.linear.{kind}",))
    yield TensorMap(f"{text}embeddings.token_embedding.weight", ("text_tower.embedding.weight",))
    yield TensorMap(f"{text}embeddings.position_embedding.weight", ("text_tower.positions",))
    yield from transformers_blocks(text, "text_tower.")
    yield TensorMap("visual_projection.weight", ("image_tower.project.weight",))
    yield TensorMap("text_projection.weight", ("text_tower.project.weight",))
    yield TensorMap("logit_scale", ("scale.log_scale",), Scalar())


@component("lit_authors", paper="arXiv:2411.14402, Table 5")
class LiTAuthors(FileLayout):
    """AIMv2's LiT model in the names of its authors' code: an image tower, a text tower, and the temperature."""

    title = "AIMv2 LiT (image and text tower), as its authors released it"
    table = TensorTable(tuple(lit_towers()))
    licence = "apple-ascl"
    target: ClassVar[str | None] = "apple"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT, and the contrastive objective that has both towers."""
        config = config or {}
        heads = config.get("vision_num_heads"), config.get("text_num_heads")
        return self.towers(self.read(tensors), *heads, given)

    def write(self, state: Tensors) -> dict[str, Tensor]:
        """Write the file, without a mask token."""
        return super().write(without_mask_token(state))

    def inexpressible(self, model: StoredModel) -> Iterable[str]:
        """Yield departures from the released LiT model."""
        yield from aimv2_problems(model.trunk, AIMV2_EPS)
        yield from tower_problems(model, AIMV2_EPS)

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the arguments of the authors' constructor."""
        return with_preprocessor(authors_towers(model), model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in the authors' code."""
        return _BY_AUTHORS

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """Both that are published."""
        return AIMV2_PREPROCESSINGS

    def towers(self, state: Tensors, image_heads: object, text_heads: object, given: GivenSettings) -> StoredModel:
        """Return the model of a state by our names; the numbers of heads are those that a config states."""
        image = aimv2_model(state, image_heads, given)
        vocabulary, width = state["text_tower.embedding.weight"].shape
        tower = TextTower(
            width=width,
            depth=depth_of(state, "text_tower.blocks."),
            num_heads=heads_of(width, given.text_heads, text_heads, "text_heads"),
            ffn_width=state["text_tower.blocks.0.ffn.fc1.weight"].shape[0],
        )
        objective = Contrastive(
            text_tower=tower,
            tokenizer=given.tokenizer or tokenizer_beside(given.url, vocabulary, vocabulary - 1),
            context_length=state["text_tower.positions"].shape[0],
            embedding_width=state["image_tower.project.weight"].shape[0],
            num_pool_heads=getattr(image.trunk, "num_heads", 1),
        )
        # A stand-in is not recorded: a tokenizer may be put next to the file later.
        known = None if isinstance(objective.tokenizer, GivenIds) else objective.tokenizer
        settings = {**image.settings, "text_heads": tower.num_heads, "tokenizer": known}
        return StoredModel(trunk=image.trunk, objective=objective, image_size=image.image_size, settings=settings)


@component("lit_flax", paper="arXiv:2411.14402, Table 5")
class LiTFlax(LiTAuthors):
    """AIMv2's LiT model in flax. Requires the extra ``flax``."""

    title = "AIMv2 LiT (image and text tower), as in flax"
    table = TensorTable(tuple(in_flax(lit_towers())))
    target: ClassVar[str | None] = None


@component("lit_mlx", paper="arXiv:2411.14402, Table 5")
class LiTMLX(LiTAuthors):
    """AIMv2's LiT model in MLX."""

    title = "AIMv2 LiT (image and text tower), as in MLX"
    table = TensorTable(tuple(in_mlx(lit_towers())))
    target: ClassVar[str | None] = None


@component("lit_transformers", paper="arXiv:2411.14402, Table 5")
class LiTTransformers(LiTAuthors):
    """AIMv2's LiT model in the library transformers."""

    title = "AIMv2 LiT (image and text tower), as in transformers"
    table = TensorTable(tuple(_transformers_towers()))
    target: ClassVar[str | None] = "transformers"

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT, and the contrastive objective that has both towers."""
        vision, text = _part(config, "vision_config"), _part(config, "text_config")
        heads = vision.get("num_attention_heads"), text.get("num_attention_heads")
        return self.towers(self.read(tensors), *heads, given)

    def stated(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings in a config of transformers with a part for each tower."""
        image = transformers_config(_part(config, "vision_config"))
        kept = ("width", "depth", "num_heads", "norm_eps")
        text = transformers_config(_part(config, "text_config"), "objective.text_tower")
        stated = image | {path: value for path, value in text.items() if path.rpartition(".")[2] in kept}
        if "projection_dim" in config:
            stated["objective.embedding_width"] = config["projection_dim"]
        return stated

    def config(self, model: StoredModel, preprocessing: Preprocessing | None) -> Mapping[str, Mapping[str, Any]]:
        """Return the config of transformers' ``Aimv2Model``."""
        return with_preprocessor(transformers_towers(model), model, preprocessing)

    def usage(self, model: StoredModel) -> str:
        """Return code that opens it in transformers; of a model whose tokenizer is unknown, with ids of texts."""
        is_known = model.objective is not None and not isinstance(getattr(model.objective, "tokenizer", None), GivenIds)
        return _BY_TRANSFORMERS if is_known else _BY_TRANSFORMERS_WITH_IDS


def _part(config: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    part = (config or {}).get(name)
    return part if isinstance(part, Mapping) else {}


_BY_AUTHORS = """\
import json
from aim.v2.torch.models import AIMv2LiT
from safetensors.torch import load_file

model = AIMv2LiT(**json.load(open("FOLDER/config.json")))
model.load_state_dict(load_file("FOLDER/model.safetensors"))
"""
_BY_TRANSFORMERS = """\
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
texts = tokenizer(["a cat", "a dog"], padding="max_length", truncation=True, return_tensors="pt")
# The attention mask makes the text tower causal: pass it on.
logits = model(**texts, **processor(images=image, return_tensors="pt")).logits_per_image
"""
_BY_TRANSFORMERS_WITH_IDS = """\
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
# The tokenizer is unknown: ids_BT and mask_BT are the ids of texts, padded at the end, and 0 where they are padding.
# The attention mask makes the text tower causal: pass it on.
pixels = processor(images=image, return_tensors="pt")
logits = model(input_ids=ids_BT, attention_mask=mask_BT, **pixels).logits_per_image
"""
