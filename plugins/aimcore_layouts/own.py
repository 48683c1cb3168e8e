"""Trunks of this project, in the names of the module: what ``aimcore export RUN --out FILE`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aimcore import component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.io.preprocessor_files import IMAGENET
from aimcore_layouts.authors import AIM_EPS, AIMV2_EPS
from aimcore_layouts.inference import heads_of, vit_of


def _rules() -> Iterator[TensorMap]:
    block = "blocks.{i}."
    norms = ("patch_norm", f"{block}norm_1", f"{block}norm_2", "norm")
    matrices = (f"{block}attention.{part}" for part in ("query", "key", "value", "out"))
    always = ("patch_embedding.linear.weight", "patch_embedding.linear.bias", *(f"{one}.weight" for one in norms),
              *(f"{one}.weight" for one in (*matrices, f"{block}ffn.fc1", f"{block}ffn.fc2")))  # fmt: skip
    groups = {
        "layer norm": tuple(f"{one}.bias" for one in norms),
        "swiglu": (f"{block}ffn.fc3.weight",),
        "positions": ("positions.table",),
    }
    yield from (_rule(name) for name in always)
    yield from (_rule(name, group) for group, names in groups.items() for name in names)


def _rule(name: str, group: str = "") -> TensorMap:
    return TensorMap(name, (f"trunk.{name}",), group=group)


@component("vit")
class OwnViT(FileLayout):
    """A ViT of this project, without its recipe: heads and norms are those of the released models unless given."""

    title = "a ViT of this project, in the form of AIM or AIMv2"
    table = TensorTable(tuple(_rules()))

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT."""
        state = self.read(tensors)
        layer_norm, width = "trunk.norm.bias" in state, state["trunk.norm.weight"].shape[0]
        heads = heads_of(width, given.num_heads, None)
        trunk = vit_of(state, heads, norm_eps=AIM_EPS if layer_norm else AIMV2_EPS)
        size = None if trunk.grid is None else trunk.grid[0] * trunk.patch_size
        advice = "the file has no recipe, so the epsilon of its norms is taken for that of the released models"
        size = size or given.image_size
        settings = {"num_heads": heads, "image_size": size}
        return StoredModel(trunk=trunk, image_size=size, settings=settings, advice=(advice,))

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """ImageNet's, the default of experiments."""
        return (("the default of experiments", IMAGENET),)
