"""Files of EfficientNet-lite as the PyPI package ``efficientnet-lite-pytorch`` stores them, with the names of timm.

The package numbers all blocks; timm numbers the stages, and the blocks of each. Both are the architecture that
TensorFlow's authors published (arXiv:1905.11946; without squeeze-and-excitation, with ReLU6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from aimcore_trunks.released import UnknownLayout

_MARK = "_conv_stem.weight"
_BLOCK = re.compile(r"_blocks\.(\d+)\.(_\w+)\.(.+)")
_STEM_AND_HEAD = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Names in a block that does not expand its input."""


def is_efficientnet_lite(state: Mapping[str, Tensor]) -> bool:
    """Return whether ``state`` has the names of that package."""
    return _MARK in state


def from_efficientnet_lite(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the names of a file to those of timm; the classifier ``_fc`` is dropped.

    Raises:
        UnknownLayout: an entry has an unknown name.
    """
    stages = _stages(state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        block = _BLOCK.fullmatch(name)
        if part == "_fc":
            continue
        if block is not None:
            index, inner, kind = int(block[1]), block[2], block[3]
            names = _EXPANDING if f"_blocks.{index}._expand_conv.weight" in state else _FIRST
            if inner in names:
                stage, number = stages[index]
                renamed[f"blocks.{stage}.{number}.{names[inner]}.{kind}"] = value
                continue
        if part in _STEM_AND_HEAD:
            renamed[f"{_STEM_AND_HEAD[part]}.{rest}"] = value
            continue
        raise UnknownLayout(f"unknown entry {name!r} with shape {tuple(value.shape)} in a file of EfficientNet-lite")
    return renamed


def _stages(state: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Return the stage of each block, and its number in the stage.

    A stage begins where the number of channels changes; those of a stage's first block and of later ones differ in
    their inputs only.
    """
    numbers = sorted({int(found[1]) for name in state if (found := _BLOCK.fullmatch(name))})
    widths = [_width(state, number) for number in numbers]
    stages: list[tuple[int, int]] = []
    for index, width in enumerate(widths):
        stage, number = stages[-1] if stages else (-1, 0)
        stages.append((stage, number + 1) if index and width == widths[index - 1] else (stage + 1, 0))
    return stages


def _width(state: Mapping[str, Tensor], number: int) -> int:
    """Return the number of output channels of a block."""
    weight = state.get(f"_blocks.{number}._project_conv.weight")
    if weight is None:
        raise UnknownLayout(f"a file of EfficientNet-lite without the entry _blocks.{number}._project_conv.weight")
    return int(weight.shape[0])
