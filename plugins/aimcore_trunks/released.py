"""Conversion of the released encoders' weights to this project's names.

Two layouts are read, both by the authors: that of the released encoders (query, key and value fused as ``attn.qkv``)
and that of the training code (three projections). Other layouts of the same weights are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from aimcore import AimcoreError

_NAMES = {
    "patchifier.proj.bias": "patch_embedding.linear.bias",
    "patchifier.norm": "patch_norm",
    "post_trunk_norm": "norm",
    "attn.proj": "attention.out",
    "attn.q_proj": "attention.query",
    "attn.k_proj": "attention.key",
    "attn.v_proj": "attention.value",
    "mlp": "ffn",
}
_WRAPPERS = re.compile(r"^(models\.)?(image_encoder\.)?(preprocessor\.(blocks\.0\.)?|trunk\.)")


class UnknownLayout(AimcoreError):
    """A state dict is not in a layout of the released encoders."""


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict in the authors' layout to that of a :class:`~aimcore_trunks.vit.ViT` module.

    Entries of heads, text towers and decoders are dropped. The patch convolution ``[D, C, P, P]`` becomes a matrix
    ``[D, P * P * C]`` in this project's order of patch values (row, column, channel).

    Two normalisations of pixels are published for AIMv2's encoders (:mod:`aimcore_trunks.normalization`). A run that
    starts from such weights warns unless ``data`` agrees with the ``preprocessor_config.json`` in their folder.

    Raises:
        UnknownLayout: an entry of the trunk is unknown, or the state has no entry of a trunk.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if _WRAPPERS.match(key):
            converted.update(_entry(_WRAPPERS.sub("", key), value))
    if not converted:
        raise UnknownLayout(f"no entry of an AIM or AIMv2 encoder among {sorted(state)[:5]} ... ({len(state)} entries)")
    return converted


def _entry(key: str, value: Tensor) -> dict[str, Tensor]:
    if key == "pos_embed":
        return {"positions.table": value.squeeze(0)}
    if key == "patchifier.proj.weight":
        return {"patch_embedding.linear.weight": value.permute(0, 2, 3, 1).flatten(1)}
    if ".attn.qkv." in key:
        stem, kind = key.split("attn.qkv.")
        parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
        return {f"{stem}attention.{part}.{kind}": third for part, third in parts}
    for theirs, ours in _NAMES.items():
        if theirs in key:
            return {key.replace(theirs, ours): value}
    if re.fullmatch(r"blocks\.\d+\.norm_[12]\.(weight|bias)", key):
        return {key: value}
    raise UnknownLayout(f"unknown entry {key!r} with shape {tuple(value.shape)} in a released encoder's weights")
