"""Forms of tensors in files of weights: how one tensor of a file becomes tensors of a module, and back.

Shape suffixes: D width, F values of a patch, P side of a patch, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from aimcore.contracts.errors import AimcoreError

_AXES = {"OIHW": (0, 2, 3, 1), "OHWI": (0, 1, 2, 3), "HWIO": (3, 0, 1, 2)}
"""The axes of a convolution's weights in the order (output, row, column, input)."""
_CHANNELS = (3, 1)


class NotInLayout(AimcoreError):
    """A state has other tensors than a table describes."""


class TensorForm(ABC):
    """How one tensor of a file becomes tensors of a module, and back."""

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Return why a tensor of ``shape`` cannot be read; None if it can be."""
        return None

    def example(self) -> Tensor:
        """Return a small tensor that can be read, for the conformance kit."""
        return torch.arange(12.0).reshape(6, 2)

    @abstractmethod
    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Convert a tensor of a file."""

    @abstractmethod
    def write(self, values: Sequence[Tensor]) -> Tensor:
        """Convert tensors of a module: the inverse of :meth:`read`."""


@attrs.frozen
class Same(TensorForm):
    """The same tensor."""

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Return it."""
        return (value,)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """Return it."""
        return values[0]


SAME = Same()


@attrs.frozen
class Transposed(TensorForm):
    """A matrix ``[in, out]``, which is ``[out, in]`` here; with ``parts``, several of them side by side."""

    parts: int = 1

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require a matrix that can be divided."""
        return _matrix_problem(shape, 1, self.parts)

    def example(self) -> Tensor:
        """``[2, 3 * parts]``."""
        return torch.arange(6.0 * self.parts).reshape(2, -1)

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """``[in, parts * out]`` to ``parts`` matrices ``[out, in]``."""
        return tuple(part.T for part in value.chunk(self.parts, dim=1))

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """``parts`` matrices ``[out, in]`` to ``[in, parts * out]``."""
        return torch.cat([value.T for value in values], dim=1)


@attrs.frozen
class Stacked(TensorForm):
    """Several matrices ``[out, in]`` (or biases ``[out]``) one below the other, such as query, key and value."""

    parts: int = 3

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require a first axis that can be divided."""
        if not shape or shape[0] % self.parts:
            return f"its first axis must be a multiple of {self.parts}"
        return None

    def example(self) -> Tensor:
        """``[2 * parts, 3]``."""
        return torch.arange(6.0 * self.parts).reshape(-1, 3)

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """``[parts * out, in]`` to ``parts`` matrices ``[out, in]``."""
        return value.chunk(self.parts)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """``parts`` matrices ``[out, in]`` to ``[parts * out, in]``."""
        return torch.cat(list(values))


@attrs.frozen
class LeadingOnes(TensorForm):
    """A tensor with ``axes`` leading axes of length 1, which are left out here: ``[1, N, D]`` is ``[N, D]``."""

    axes: int = 1

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require the leading axes."""
        if len(shape) <= self.axes or any(length != 1 for length in shape[: self.axes]):
            return f"its first {self.axes} axes must have length 1"
        return None

    def example(self) -> Tensor:
        """``[1, ..., 3]``."""
        return torch.arange(3.0).reshape(*(1,) * self.axes, 3)

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Remove the axes."""
        return (value.reshape(value.shape[self.axes :]),)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """Add the axes."""
        return values[0].reshape(*(1,) * self.axes, *values[0].shape)


@attrs.frozen
class Scalar(TensorForm):
    """A single number without axes, which is ``[1]`` here."""

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require no axes."""
        return None if len(shape) == 0 else "it must be a single number"

    def example(self) -> Tensor:
        """A number."""
        return torch.tensor(1.5)

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """``[]`` to ``[1]``."""
        return (value.reshape(1),)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """``[1]`` to ``[]``."""
        return values[0].reshape(())


@attrs.frozen
class Convolution(TensorForm):
    """The convolution of a patch embedding, which is a matrix ``[D, P * P * C]`` here: (row, column, channel).

    ``order`` names its axes: output, input, height (rows), width (columns). Images have 3 channels or 1.
    """

    order: Literal["OIHW", "OHWI", "HWIO"] = "OIHW"

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require four axes in this order, with square patches."""
        if len(shape) == 4:
            _, rows, columns, channels = (shape[axis] for axis in _AXES[self.order])
            if rows == columns and channels in _CHANNELS:
                return None
        return f"it must be a convolution {self.order} of square patches of 3 channels or 1"

    def example(self) -> Tensor:
        """Two outputs, patches of 4 px, 3 channels."""
        return torch.arange(96.0).reshape([{"O": 2, "I": 3, "H": 4, "W": 4}[axis] for axis in self.order])

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Four axes to ``[D, P * P * C]``."""
        return (value.permute(_AXES[self.order]).flatten(1),)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """``[D, P * P * C]`` to four axes."""
        side, channels = patch_shape(values[0].shape[1])
        value_DPPC = values[0].reshape(-1, side, side, channels)
        back = [_AXES[self.order].index(axis) for axis in range(4)]
        return value_DPPC.permute(back)


@attrs.frozen
class Constant(TensorForm):
    """A number that is the same in every file, and that no module needs; another one is refused."""

    value: float

    def problem_with(self, shape: Sequence[int]) -> str | None:
        """Require no axes."""
        return None if len(shape) == 0 else "it must be a single number"

    def example(self) -> Tensor:
        """The number."""
        return torch.tensor(self.value)

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        """Return nothing.

        Raises:
            NotInLayout: it is another number.
        """
        if not value.is_meta and float(value) != self.value:
            raise NotInLayout(f"a file has {float(value)} where every file of this layout has {self.value}")
        return ()

    def write(self, values: Sequence[Tensor]) -> Tensor:
        """The number."""
        return torch.tensor(self.value)


def patch_shape(num_values: int) -> tuple[int, int]:
    """Return the side and the number of channels (3 or 1) of a square patch of ``num_values`` values.

    Raises:
        NotInLayout: no square patch has this number of values.

    >>> patch_shape(588), patch_shape(16)
    ((14, 3), (4, 1))
    """
    for channels in _CHANNELS:
        side = round((num_values / channels) ** 0.5)
        if side**2 * channels == num_values and side:
            return side, channels
    raise NotInLayout(f"no square patch of 3 channels or 1 has {num_values} values")


def _matrix_problem(shape: Sequence[int], axis: int, parts: int) -> str | None:
    if len(shape) != 2 or shape[axis] % parts:
        return "it must be a matrix" + ("" if parts == 1 else f" whose axis {axis} is a multiple of {parts}")
    return None
