"""Rules for the parts that several layouts share: the encoders in the authors' names, and variations of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from aimcore.contracts.tensor_forms import (
    Constant,
    Convolution,
    LeadingOnes,
    Scalar,
    Stacked,
    TensorForm,
    Transposed,
)
from aimcore.contracts.tensor_maps import TensorMap

_ATTENTION = ("query", "key", "value")


def authors_encoder(
    *, swiglu: bool, norm_bias: bool, theirs: str = "", ours: str = "trunk.", learned: bool = False
) -> Iterator[TensorMap]:
    """Yield the rules of the released encoders, in the names of their authors' code.

    Args:
        swiglu: AIMv2's feed-forward network, with a third matrix; otherwise AIM's.
        norm_bias: AIM's LayerNorm; otherwise AIMv2's RMSNorm.
        theirs: what the names in the file begin with.
        ours: what the names in the module begin with.
        learned: whether there may be learned positions.
    """
    stem = f"{theirs}preprocessor."
    yield TensorMap(f"{stem}patchifier.proj.weight", (f"{ours}patch_embedding.linear.weight",), Convolution("OIHW"))
    yield TensorMap(f"{stem}patchifier.proj.bias", (f"{ours}patch_embedding.linear.bias",))
    yield from norm_rules(f"{stem}patchifier.norm", f"{ours}patch_norm", norm_bias)
    if learned:
        yield TensorMap(f"{stem}pos_embed", (f"{ours}positions.table",), LeadingOnes(), group=f"{theirs}positions")
    yield from authors_blocks(swiglu=swiglu, norm_bias=norm_bias, theirs=f"{theirs}trunk.", ours=ours)


def authors_blocks(*, swiglu: bool, norm_bias: bool, theirs: str, ours: str) -> Iterator[TensorMap]:
    """Yield the rules of a transformer's blocks and final norm, in the names of the authors' code."""
    block, own = f"{theirs}blocks.{{i}}.", f"{ours}blocks.{{i}}."
    yield from norm_rules(f"{block}norm_1", f"{own}norm_1", norm_bias)
    fused = tuple(f"{own}attention.{part}.weight" for part in _ATTENTION)
    yield TensorMap(f"{block}attn.qkv.weight", fused, Stacked(3))
    yield TensorMap(f"{block}attn.proj.weight", (f"{own}attention.out.weight",))
    yield from norm_rules(f"{block}norm_2", f"{own}norm_2", norm_bias)
    for matrix in ("fc1", "fc2", "fc3") if swiglu else ("fc1", "fc2"):
        yield TensorMap(f"{block}mlp.{matrix}.weight", (f"{own}ffn.{matrix}.weight",))
    yield from norm_rules(f"{theirs}post_trunk_norm", f"{ours}norm", norm_bias)


def transformers_encoder(theirs: str = "") -> Iterator[TensorMap]:
    """Yield the rules of AIMv2's vision model in the library transformers."""
    stem = f"{theirs}embeddings."
    yield TensorMap(f"{stem}patch_embed.weight", ("trunk.patch_embedding.linear.weight",), Convolution("OIHW"))
    yield TensorMap(f"{stem}patch_embed.bias", ("trunk.patch_embedding.linear.bias",))
    yield TensorMap(f"{stem}rms_norm.weight", ("trunk.patch_norm.weight",))
    yield TensorMap(f"{stem}position_embedding.weight", ("trunk.positions.table",), group=f"{theirs}positions")
    yield from transformers_blocks(theirs, "trunk.")


def transformers_blocks(theirs: str, ours: str) -> Iterator[TensorMap]:
    """Yield the rules of a transformer's blocks and final norm in the library transformers."""
    block, own = f"{theirs}encoder.layers.{{i}}.", f"{ours}blocks.{{i}}."
    names = {
        "rms_norm1": "norm_1", "attention.q_proj": "attention.query", "attention.k_proj": "attention.key",
        "attention.v_proj": "attention.value", "attention.out_proj": "attention.out", "rms_norm2": "norm_2",
        "ffn.gate_proj": "ffn.fc1", "ffn.up_proj": "ffn.fc3", "ffn.down_proj": "ffn.fc2",
    }  # fmt: skip
    for one, mine in names.items():
        yield TensorMap(f"{block}{one}.weight", (f"{own}{mine}.weight",))
    yield TensorMap(f"{theirs}rms_norm.weight", (f"{ours}norm.weight",))


def timm_encoder() -> Iterator[TensorMap]:
    """Yield the rules of AIMv2's models in the library timm."""
    yield TensorMap("patch_embed.proj.weight", ("trunk.patch_embedding.linear.weight",), Convolution("OIHW"))
    yield TensorMap("patch_embed.proj.bias", ("trunk.patch_embedding.linear.bias",))
    yield TensorMap("patch_embed.norm.weight", ("trunk.patch_norm.weight",))
    yield TensorMap("pos_embed", ("trunk.positions.table",), LeadingOnes(), group="positions")
    block, own = "blocks.{i}.", "trunk.blocks.{i}."
    yield TensorMap(f"{block}norm1.weight", (f"{own}norm_1.weight",))
    fused = tuple(f"{own}attention.{part}.weight" for part in _ATTENTION)
    yield TensorMap(f"{block}attn.qkv.weight", fused, Stacked(3))
    yield TensorMap(f"{block}attn.proj.weight", (f"{own}attention.out.weight",))
    yield TensorMap(f"{block}norm2.weight", (f"{own}norm_2.weight",))
    for theirs, mine in {"fc1_g": "fc1", "fc1_x": "fc3", "fc2": "fc2"}.items():
        yield TensorMap(f"{block}mlp.{theirs}.weight", (f"{own}ffn.{mine}.weight",))
    yield TensorMap("norm.weight", ("trunk.norm.weight",))


def released_probe(group: str = "probe") -> Iterator[TensorMap]:
    """Yield the rules of AIM's attention probe, in the names of its authors' code."""
    yield TensorMap("head.cls_token", ("probe.query",), LeadingOnes(2), group=group)
    for theirs, own in {"k": "key", "v": "value", "linear": "classifier"}.items():
        yield TensorMap(f"head.{theirs}.weight", (f"probe.{own}.weight",), group=group)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        yield TensorMap(f"head.bn.{name}", (f"probe.norm.{name}",), group=group)


def lit_towers(*, norm_bias: bool = False) -> Iterator[TensorMap]:
    """Yield the rules of AIMv2's LiT model, in the names of its authors' code."""
    image, text = "image_encoder.", "text_encoder."
    yield from authors_encoder(swiglu=True, norm_bias=norm_bias, theirs=image, learned=True)
    yield TensorMap(f"{image}head.cls_token", ("image_tower.query",), LeadingOnes(2))
    for theirs, own in {"k.weight": "key.weight", "v.weight": "value.weight"}.items():
        yield TensorMap(f"{image}head.{theirs}", (f"image_tower.{own}",))
    for kind in ("weight", "bias"):
        yield TensorMap(f"{image}head.linear.{kind}", (f"image_tower.linear.{kind}",))
    yield TensorMap(f"{text}preprocessor.text_embedding.weight", ("text_tower.embedding.weight",))
    yield TensorMap(f"{text}preprocessor.positional_embedding", ("text_tower.positions",))
    yield from authors_blocks(swiglu=True, norm_bias=norm_bias, theirs=f"{text}trunk.", ours="text_tower.")
    yield TensorMap("image_projector.weight", ("image_tower.project.weight",))
    yield TensorMap("text_projector.weight", ("text_tower.project.weight",))
    yield TensorMap("log_logit_scale", ("scale.log_scale",), Scalar())


def in_mlx(rules: Iterable[TensorMap]) -> Iterator[TensorMap]:
    """Yield ``rules`` for files of MLX, which has the authors' names, and the channels of a convolution last."""
    for rule in rules:
        yield attrs.evolve(rule, form=Convolution("OHWI") if isinstance(rule.form, Convolution) else rule.form)


def in_flax(rules: Iterable[TensorMap]) -> Iterator[TensorMap]:
    """Yield ``rules`` for files of flax: names of its layers, matrices ``[in, out]``, convolutions HWIO.

    Files that the authors' converter made also hold the statistics of a batch norm that the model does not have.
    """
    for rule in rules:
        yield attrs.evolve(rule, theirs=_flax_name(rule.theirs), form=_flax_form(rule))
    yield TensorMap("batch_stats.head.bn.mean", (), Constant(0.0), group="converter")
    yield TensorMap("batch_stats.head.bn.var", (), Constant(1.0), group="converter")


def _flax_name(name: str) -> str:
    stem, _, kind = f"params.{name.replace('.blocks.{i}.', '.layers_{i}.')}".rpartition(".")
    layer = stem.rpartition(".")[2]
    if kind == "weight":
        kind = "embedding" if layer == "text_embedding" else "scale" if "norm" in layer else "kernel"
    return f"{stem}.{kind}"


def _flax_form(rule: TensorMap) -> TensorForm:
    if isinstance(rule.form, Convolution):
        return Convolution("HWIO")
    if isinstance(rule.form, Stacked):
        return Transposed(rule.form.parts)
    return Transposed() if _flax_name(rule.theirs).endswith(".kernel") else rule.form


def norm_rules(theirs: str, ours: str, bias: bool, group: str = "") -> Iterator[TensorMap]:
    """Yield the rules of a norm: LayerNorm with a bias, or RMSNorm."""
    for kind in ("weight", "bias") if bias else ("weight",):
        yield TensorMap(f"{theirs}.{kind}", (f"{ours}.{kind}",), group=group)
