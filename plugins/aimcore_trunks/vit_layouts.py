"""Files of Vision Transformers in the layouts of MAE, DINO, iBOT and BEiT, with the names of timm.

All four name the encoder alike (``cls_token``, ``pos_embed``, ``patch_embed.proj``, ``blocks.0.attn.qkv``, ...), and so
does timm. They differ in what surrounds it:

| file | source | around the encoder |
|---|---|---|
| MAE | arXiv:2111.06377 | ``model.``; ``mask_token``, ``decoder_*`` |
| DINO | arXiv:2104.14294 | nothing, or ``student.`` and ``teacher.`` with ``module.``, ``backbone.`` and ``head.`` |
| iBOT | arXiv:2111.07832 | as DINO, or ``state_dict.``; ``masked_embed``, ``head.*`` |
| BEiT | arXiv:2106.08254 | ``model.``; ``mask_token``, ``lm_head.*``, tables of relative positions, layer scales |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from aimcore_trunks.released import UnknownLayout

_MARK = "patch_embed.proj.weight"
_WRAPPERS = re.compile(r"^((model|module|state_dict|backbone|encoder|teacher|student|target_encoder|model_ema)\.)*$")
_PRETRAINING = re.compile(
    r"(mask_token|masked_embed|decoder_.+|decoder\..+|head\..+|head2\..+|lm_head\..+|projector\..+|predictor\..+"
    r"|.*relative_position_index|rel_pos_bias\.relative_position_index)"
)
"""Entries below the encoder's prefix that only pre-training or a classifier uses, and constant tables of indices."""
_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
_OWN_TABLE = re.compile(r"blocks\.\d+\.attn\.relative_position_bias_table")


def is_vit_file(state: Mapping[str, Tensor]) -> bool:
    """Return whether ``state`` has an encoder with these names."""
    return any(name.endswith(_MARK) and _WRAPPERS.match(name.removesuffix(_MARK)) for name in state)


def from_vit_file(state: Mapping[str, Tensor], own: Sequence[str]) -> dict[str, Tensor]:
    """Return the entries of the encoder in ``state`` with timm's names.

    A table of relative positions that BEiT shares among its blocks is repeated for each block, as the authors do for
    fine-tuning, if the encoder has one per block. Of a student and a teacher, the teacher is read. Shapes and names of
    the encoder are not checked here: whoever loads the result does.

    Args:
        state: the entries of the file.
        own: names of the encoder that is loaded.

    Raises:
        UnknownLayout: an entry outside of the encoder is of an unknown kind.
    """
    prefix = _prefix_in(state)
    _require_known(state, prefix)
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    entries = {name: value for name, value in inside.items() if not _PRETRAINING.fullmatch(name)}
    if _SHARED_TABLE in entries and _SHARED_TABLE not in own:
        table = entries.pop(_SHARED_TABLE)
        # Copies: tensors of a file must not share memory.
        entries.update({name: table.clone() for name in own if _OWN_TABLE.fullmatch(name)})
    return entries


def layout_of(state: Mapping[str, Tensor]) -> str:
    """Name the layout of a file with an encoder, by its entries: ``"MAE"``, ``"BEiT"``, ``"iBOT"`` or ``"DINO"``.

    >>> import torch
    >>> layout_of({"cls_token": torch.zeros(1), "decoder_pred.weight": torch.zeros(1)})
    'MAE'
    """
    names = [name.rpartition(".")[2] if name.endswith("_embed") else name for name in state]
    if any(".decoder_" in f".{name}" for name in names):
        return "MAE"
    if any(mark in name for name in names for mark in ("relative_position", ".gamma_1", ".q_bias", "lm_head.")):
        return "BEiT"
    return "iBOT" if "masked_embed" in names else "DINO"


def _prefix_in(state: Mapping[str, Tensor]) -> str:
    found = [name.removesuffix(_MARK) for name in state if name.endswith(_MARK)]
    prefixes = [prefix for prefix in found if _WRAPPERS.match(prefix)]
    return min(prefixes, key=lambda prefix: ("teacher." not in prefix, len(prefix)))


def _require_known(state: Mapping[str, Tensor], prefix: str) -> None:
    """Require that entries outside of the encoder belong to another branch, or to heads beside it."""
    beside = prefix.removesuffix("backbone.").removesuffix("encoder.")
    unknown = [name for name in _outside(state, prefix) if not _is_known(name, prefix, beside)]
    if unknown:
        raise UnknownLayout(
            f"the file has a Vision Transformer in the layout of {layout_of(state)} below {prefix!r}, and beside it "
            f"entries of an unknown kind: {', '.join(unknown[:5])} ({len(unknown)} in all)"
        )


def _outside(state: Mapping[str, Tensor], prefix: str) -> Iterable[str]:
    return (name for name in state if not name.startswith(prefix))


def _is_known(name: str, prefix: str, beside: str) -> bool:
    is_student = prefix.startswith("teacher.") and name.startswith("student.")
    is_loss = name.startswith(("dino_loss.", "ibot_loss.", "optimizer.", "fp16_scaler.", "scaler."))
    return is_student or is_loss or bool(_PRETRAINING.fullmatch(name.removeprefix(beside)))
