"""The files of the authors' training code: the encoder with its prediction head (AIM), or with its decoder (AIMv2).

Such files were never released; the code that writes them was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aimcore import PatchGrid, component
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel, Tensors
from aimcore.contracts.tensor_forms import Convolution, LeadingOnes, NotInLayout, TensorForm
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.io.preprocessor_files import IMAGENET
from aimcore.modeling.positions import sincos_positions
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_layouts.authors import IMAGE_SIZE, aimv2_model
from aimcore_layouts.inference import depth_of, heads_of, square_of, vit_of
from aimcore_layouts.tables import norm_rules
from aimcore_objectives import Multimodal, NextPatch
from aimcore_tokenizers import GivenIds

EPS = 1e-5
"""Epsilon of all norms in the training code; the released AIM encoders have 1e-6."""
_STORED = "fixed positions"
_PADDING = 1
"""SigLIP's padding, which is its end token too."""


class FixedPositions(TensorForm):
    """Sine-cosine positions ``[1, N, D]`` of a square grid, which are computed here; others are refused."""

    def example(self) -> Tensor:
        """Those of 2 x 2 patches at width 8."""
        return _sincos(2, 8)

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require the axes of positions."""
        return None if len(shape) == 3 and shape[0] == 1 and shape[2] % 4 == 0 else "it must be [1, N, D]"

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Return nothing, if the values are those that are computed.

        Raises:
            NotInLayout: they are others: positions were learned, or are of a grid that is not square.
        """
        side, _ = square_of(value.shape[1])
        if not value.is_meta and not torch.allclose(value.float(), _sincos(side, value.shape[2]), atol=1e-4):
            raise NotInLayout("the positions in the file are not the sine-cosine ones that its layout has")
        return ()

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """Those of the example: positions do not depend on weights."""
        return self.example()


def _encoder(theirs: str, *, swiglu: bool, bias: bool) -> Iterator[TensorMap]:
    """Yield the rules of an encoder without its positions: three projections, and a list of preprocessors."""
    stem = f"{theirs}preprocessor.blocks.0.patchifier."
    yield TensorMap(f"{stem}proj.weight", ("trunk.patch_embedding.linear.weight",), Convolution("OIHW"))
    yield TensorMap(f"{stem}proj.bias", ("trunk.patch_embedding.linear.bias",))
    yield from norm_rules(f"{stem}norm", "trunk.patch_norm", bias)
    yield from _blocks(f"{theirs}trunk.", "trunk.", swiglu=swiglu, bias=bias)


def _blocks(theirs: str, ours: str, *, swiglu: bool, bias: bool, group: str = "") -> Iterator[TensorMap]:
    block, own = f"{theirs}blocks.{{i}}.", f"{ours}blocks.{{i}}."
    for number in (1, 2):
        yield from norm_rules(f"{block}norm_{number}", f"{own}norm_{number}", bias, group)
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "proj": "out"}
    for one, mine in names.items():
        yield TensorMap(f"{block}attn.{one}.weight", (f"{own}attention.{mine}.weight",), group=group)
    for matrix in ("fc1", "fc2", "fc3") if swiglu else ("fc1", "fc2"):
        yield TensorMap(f"{block}mlp.{matrix}.weight", (f"{own}ffn.{matrix}.weight",), group=group)
    yield from norm_rules(f"{theirs}post_trunk_norm", f"{ours}norm", bias, group)


def _head() -> Iterator[TensorMap]:
    """Yield the rules of AIM's MLP head; its positions are fixed, and stored."""
    yield TensorMap("head.decoder_pos_embed", (), FixedPositions(), group=_STORED)
    for theirs, own in {"decoder_projection": "project", "decoder_pred": "out"}.items():
        for kind in ("weight", "bias"):
            yield TensorMap(f"head.{theirs}.{kind}", (f"head.{own}.{kind}",))
    for number in (1, 2):
        yield from norm_rules(f"head.decoder_blocks.{{i}}.norm_{number}", f"head.blocks.{{i}}.norm_{number}", True)
        matrix = f"fc{number}.weight"
        yield TensorMap(f"head.decoder_blocks.{{i}}.mlp.{matrix}", (f"head.blocks.{{i}}.ffn.{matrix}",))
    yield from norm_rules("head.decoder_norm", "head.norm", True)


def _decoder() -> Iterator[TensorMap]:
    """Yield the rules of AIMv2's joint decoder."""
    stem, group = "models.text_decoder.", "decoder"
    text = f"{stem}preprocessor.text_preprocessor."
    yield TensorMap(f"{text}cls_token", ("decoder.text_inputs.begin",), LeadingOnes(2), group)
    yield TensorMap(f"{text}positional_embedding", ("decoder.text_inputs.positions",), group=group)
    yield TensorMap(f"{text}text_embedding.weight", ("decoder.text_inputs.embedding.weight",), group=group)
    for kind in ("weight", "bias"):
        project = f"{stem}preprocessor.vision_preprocessor.module.{kind}"
        yield TensorMap(project, (f"decoder.project.{kind}",), group=group)
    yield from _blocks(f"{stem}trunk.", "decoder.", swiglu=True, bias=False, group=group)
    yield TensorMap(f"{stem}head.blocks.0.linear.weight", ("decoder.to_tokens.weight",), group=group)
    yield TensorMap(f"{stem}head.blocks.1.linear.weight", ("decoder.to_patches.weight",), group=group)


def _sincos(side: int, width: int) -> Tensor:
    """``[1, N, D]``: the positions of ``side`` x ``side`` patches."""
    grid, index_N = PatchGrid(side, side), torch.arange(side**2)
    return sincos_positions(torch.stack([index_N // grid.columns, index_N % grid.columns], dim=1), width).unsqueeze(0)


_IMAGE = "models.image_encoder."
_AIM = TensorTable(
    (
        *_encoder("", swiglu=False, bias=True),
        TensorMap("preprocessor.blocks.0.pos_embed", (), FixedPositions(), group=_STORED),
        *_head(),
    )
)
_AIMV2 = TensorTable(
    (
        *_encoder(_IMAGE, swiglu=True, bias=False),
        TensorMap(
            f"{_IMAGE}preprocessor.blocks.0.pos_embed", ("trunk.positions.table",), LeadingOnes(), group="positions"
        ),
        *_decoder(),
    )
)


@component("aim_training", paper="arXiv:2401.08541")
class AIMTraining(FileLayout):
    """AIM's encoder with its MLP head, as the authors' training code saves them."""

    title = "AIM with its prediction head, as the authors' training code saves it"
    table = _AIM

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT, and the objective with the head if the file has one."""
        state = self.read(tensors)
        width = state["trunk.norm.weight"].shape[0]
        trunk = vit_of(state, heads_of(width, given.num_heads, None), norm_eps=EPS)
        positions = tensors.get("preprocessor.blocks.0.pos_embed")
        size = given.image_size or IMAGE_SIZE
        if positions is not None:
            size = square_of(positions.shape[1])[0] * trunk.patch_size
        head_width = state["head.project.weight"].shape[0]
        head = MLPHead.as_in_training_code(width=head_width, depth=depth_of(state, "head.blocks."))
        settings = {"num_heads": trunk.num_heads, "image_size": size}
        return StoredModel(trunk=trunk, objective=NextPatch(head=head), image_size=size, settings=settings)

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """ImageNet's, as in the training code."""
        return (("the authors' training code", IMAGENET),)

    def explain(self, tensors: Tensors) -> str | None:
        """Explain a prediction head without its trunk."""
        names = [name.removeprefix("head.") for name in tensors]
        if names and all(name.startswith("decoder_") for name in names) and "decoder_pred.weight" in names:
            return (
                "it is the prediction head of AIM's training code without its trunk, so it is no encoder. A file with "
                "'preprocessor.', 'trunk.' and 'head.' can be opened"
            )
        return None


@component("aimv2_training", paper="arXiv:2411.14402")
class AIMv2Training(FileLayout):
    """AIMv2's encoder with its multimodal decoder, as the authors' training code saves them."""

    title = "AIMv2 with its decoder, as the authors' training code saves it"
    table = _AIMV2

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        """Return the ViT, and the objective with the decoder if the file has one."""
        state = self.read(tensors)
        image = aimv2_model(state, None, given)
        if "decoder.project.weight" not in state:
            return image
        vocabulary, width = state["decoder.text_inputs.embedding.weight"].shape
        depth, heads = depth_of(state, "decoder.blocks."), heads_of(width, given.text_heads, None, "text_heads")
        objective = Multimodal(
            decoder=JointDecoder(width=width, depth=depth, num_heads=heads, norm_eps=EPS),
            tokenizer=given.tokenizer or GivenIds(size=vocabulary, end=_PADDING, padding=_PADDING),
            context_length=state["decoder.text_inputs.positions"].shape[0] - 1,
        )
        settings = {**image.settings, "text_heads": heads, "tokenizer": given.tokenizer}
        return StoredModel(trunk=image.trunk, objective=objective, image_size=image.image_size, settings=settings)

    def preprocessings(self, config: Mapping[str, Any] | None) -> Sequence[tuple[str, Preprocessing]]:
        """ImageNet's, as in the training code."""
        return (("the authors' training code", IMAGENET),)
