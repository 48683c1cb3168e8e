"""Names of parameters in the files of transformers, which keep those of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_IMAGE_TOWERS = ("chinese_clip_vision_model", "clip_vision_model", "siglip_vision_model")
_TOWER = "vision_model."
"""What names of image towers begin with in released files, which every version of transformers reads."""


def with_present_names(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return ``state`` with the names that transformers gives the parameters since its version 5.

    Files keep the older names, in that version too.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, apply_renamings
    except ImportError:  # an earlier version, whose models have the names of the files
        return state
    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    return {apply_renamings(name, rules): value for name, value in state.items()}


def names_in_files(model: Any) -> dict[str, str]:
    """Return the names that the tensors of a model of transformers have in files, by the model's own names.

    They are those that ``save_pretrained`` writes, and for the image towers of CLIP and SigLIP those of released files.
    A model whose tensors are divided or joined in files keeps its own names, which transformers reads too.
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    own = {id(value): name for name, value in state.items()}
    names = {own[id(value)]: name for name, value in _as_written(model, state).items() if id(value) in own}
    if names.keys() != state.keys():
        names = {name: name for name in state}
    prefix = _TOWER if model.config.model_type in _IMAGE_TOWERS else ""
    return {name: prefix + written.removeprefix(prefix) for name, written in names.items()}


def _as_written(model: Any, state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return state
    written: Mapping[str, Tensor] = revert_weight_conversion(model, state)
    return written
