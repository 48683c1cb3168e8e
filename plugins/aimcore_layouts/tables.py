"""Rules for the parts that several layouts share: the encoders in the authors' names, and variations of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from aimcore.contracts.tensor_maps import Convolution, LeadingOnes, Stacked, TensorForm, TensorMap

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
    yield from _norm(f"{stem}patchifier.norm", f"{ours}patch_norm", norm_bias)
    if learned:
        yield TensorMap(f"{stem}pos_embed", (f"{ours}positions.table",), LeadingOnes(), group=f"{theirs}positions")
    yield from authors_blocks(swiglu=swiglu, norm_bias=norm_bias, theirs=f"{theirs}trunk.", ours=ours)


def authors_blocks(*, swiglu: bool, norm_bias: bool, theirs: str, ours: str) -> Iterator[TensorMap]:
    """Yield the rules of a transformer's blocks and final norm, in the names of the authors' code."""
    block, own = f"{theirs}blocks.{{i}}.", f"{ours}blocks.{{i}}."
    yield from _norm(f"{block}norm_1", f"{own}norm_1", norm_bias)
    fused = tuple(f"{own}attention.{part}.weight" for part in _ATTENTION)
    yield TensorMap(f"{block}attn.qkv.weight", fused, Stacked(3))
    yield TensorMap(f"{block}attn.proj.weight", (f"{own}attention.out.weight",))
    yield from _norm(f"{block}norm_2", f"{own}norm_2", norm_bias)
    for matrix in ("fc1", "fc2", "fc3") if swiglu else ("fc1", "fc2"):
        yield TensorMap(f"{block}mlp.{matrix}.weight", (f"{own}ffn.{matrix}.weight",))
    yield from _norm(f"{theirs}post_trunk_norm", f"{ours}norm", norm_bias)


def released_probe(group: str = "probe") -> Iterator[TensorMap]:
    """Yield the rules of AIM's attention probe, in the names of its authors' code."""
    yield TensorMap("head.cls_token", ("probe.query",), LeadingOnes(2), group=group)
    for theirs, own in {"k": "key", "v": "value", "linear": "classifier"}.items():
        yield TensorMap(f"head.{theirs}.weight", (f"probe.{own}.weight",), group=group)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        yield TensorMap(f"head.bn.{name}", (f"probe.norm.{name}",), group=group)


def renamed(rules: Iterable[TensorMap], forms: dict[type[TensorForm], TensorForm]) -> Iterator[TensorMap]:
    """Yield ``rules`` with forms of some types replaced by others."""
    for rule in rules:
        yield attrs.evolve(rule, form=forms.get(type(rule.form), rule.form))


def _norm(theirs: str, ours: str, bias: bool) -> Iterator[TensorMap]:
    yield TensorMap(f"{theirs}.weight", (f"{ours}.weight",))
    if bias:
        yield TensorMap(f"{theirs}.bias", (f"{ours}.bias",))
