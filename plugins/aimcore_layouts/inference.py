"""Settings of a model from the shapes of its tensors, by the module's own names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from aimcore import AimcoreError
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_forms import patch_shape
from aimcore_trunks import ViT

HEAD_WIDTH = 128
"""Width of a head in every released model."""


class UnknownSetting(AimcoreError):
    """A setting of a model is neither given nor implied by its weights or its config."""


def heads_of(width: int, given: int | None, stated: object, what: str = "num_heads") -> int:
    """Return the number of heads: as given, else as a config states, else heads of 128 values.

    Raises:
        UnknownSetting: the number does not divide the width, or the width is not a multiple of 128.
    """
    number = given if given is not None else stated
    if number is None:
        if width % HEAD_WIDTH:
            option = f"--{what.replace('_', '-')}"
            raise UnknownSetting(
                f"weights do not say how many heads attention has. Heads of {HEAD_WIDTH} values, as in every released "
                f"model, do not divide the width {width}: give the number by {option}, "
                f"or in Python by {what}="
            )
        return width // HEAD_WIDTH
    if type(number) is not int or number < 1 or width % number:
        raise UnknownSetting(f"{what} must be a number that divides the width {width}, got {shown(number)}")
    return number


def depth_of(names: Iterable[str], stem: str) -> int:
    """Return one more than the largest number after ``stem`` in ``names``."""
    numbers = [int(found[1]) for name in names if (found := re.match(rf"{re.escape(stem)}(\d+)\.", name))]
    return max(numbers, default=-1) + 1


def vit_of(
    state: Mapping[str, Tensor],
    num_heads: int,
    *,
    norm_eps: float,
    grid: tuple[int, int] | None = None,
    prefix: str = "trunk.",
) -> ViT:
    """Return the trunk whose module has the tensors ``state`` with names after ``prefix``. Only shapes are read.

    Learned positions are taken for those of a square grid, unless ``grid`` is given. Images of other grids get
    interpolated ones.

    Raises:
        UnknownSetting: the number of positions is not a square.
        InvalidValue: the shapes give no trunk.
    """
    width, num_values = state[f"{prefix}patch_embedding.linear.weight"].shape
    side, channels = patch_shape(num_values)
    layer_norm = f"{prefix}norm.bias" in state
    swiglu = f"{prefix}blocks.0.ffn.fc3.weight" in state
    table = state.get(f"{prefix}positions.table")
    return ViT(
        width=width,
        depth=depth_of(state, f"{prefix}blocks."),
        num_heads=num_heads,
        patch_size=side,
        num_channels=channels,
        norm="layer_norm" if layer_norm else "rms_norm",
        norm_eps=norm_eps,
        ffn="swiglu" if swiglu else "gelu",
        ffn_width=state[f"{prefix}blocks.0.ffn.fc1.weight"].shape[0],
        positions="sincos" if table is None else "learned",
        grid=None if table is None else grid or square_of(len(table)),
        interpolate=table is not None,
    )


def square_of(number: int) -> tuple[int, int]:
    """Return the rows and columns of a square grid of ``number`` patches.

    Raises:
        UnknownSetting: there is no such grid.
    """
    side = round(number**0.5)
    if side**2 != number:
        raise UnknownSetting(f"the weights have {number} learned positions, which are not those of a square grid")
    return side, side
