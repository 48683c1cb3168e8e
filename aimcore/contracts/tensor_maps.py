"""Tables that map the tensors of a file to a module's own names, in both directions.

One table describes a layout of files: :meth:`TensorTable.read` converts the tensors of a file, and
:meth:`TensorTable.write` makes the tensors of a file from a module's state, by the same rules.

Shape suffixes: D width, F values of a patch, P side of a patch, C channels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import attrs
import torch
from torch import Tensor

from aimcore.contracts import limits
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown

INDEX = "{i}"
"""Stands for the number of a block in a name."""
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


@attrs.frozen
class TensorMap:
    """A rule: the tensor ``theirs`` of a file is the tensor (or tensors) ``ours`` of a module."""

    theirs: str
    """Name in the file; ``{i}`` stands for the number of a block."""
    ours: tuple[str, ...]
    """Names in the module, with ``{i}`` in the same meaning."""
    form: TensorForm = Same()
    group: str = ""
    """Rules of one group apply together or not at all; those without a group always apply."""

    @property
    def series(self) -> str | None:
        """What comes before the number of a block; None if the rule has no number."""
        return self.theirs.partition(INDEX)[0] if INDEX in self.theirs else None


@attrs.frozen
class TableFit:
    """How the tensors of a file agree with a table; it fits if there is no problem."""

    known: int
    """Number of tensors that the table knows."""
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    """Names with shapes that the table cannot read, with the reasons."""

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems, in words."""
        listed = (
            ("missing", self.missing), ("not known in this layout", self.unknown), ("of another shape", self.misshapen),
        )  # fmt: skip
        return tuple(f"{kind}: {_several(names)}" for kind, names in listed if names)


@attrs.frozen
class TensorTable:
    """The rules of a layout of files."""

    maps: tuple[TensorMap, ...]

    def fit(self, tensors: Mapping[str, Tensor]) -> TableFit:
        """Compare names and shapes of a file with the table. Tensors may be on the meta device."""
        found = {name: rule for name in tensors if (rule := self._rule_of(name)) is not None}
        wrong = (
            (name, rule[0].form.problem_with(tensors[name].shape), tensors[name].shape) for name, rule in found.items()
        )
        return TableFit(
            known=len(found),
            unknown=tuple(name for name in tensors if name not in found),
            missing=tuple(self._missing(found)),
            misshapen=tuple(f"{name} {list(shape)} ({problem})" for name, problem, shape in wrong if problem),
        )

    def read(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the tensors of a file to a module's names.

        Raises:
            NotInLayout: a tensor is not known in this layout.
        """
        state: dict[str, Tensor] = {}
        for name, value in tensors.items():
            rule, number = self._require_rule(name)
            names = [ours.replace(INDEX, number) for ours in rule.ours]
            state.update(zip(names, rule.form.read(value), strict=True))
        return state

    def write(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a module's state to the tensors of a file: the inverse of :meth:`read`.

        Raises:
            NotInLayout: the state has tensors that this layout has no place for, or lacks some.
        """
        left = dict(state)
        written: dict[str, Tensor] = {}
        for name in self._expected(state):
            rule, number = self._require_rule(name)
            ours = [one.replace(INDEX, number) for one in rule.ours]
            if any(one in left for one in ours):
                lacking = [one for one in ours if one not in left]
                if lacking:
                    raise NotInLayout(f"the state lacks {_several(lacking)}, which {name} is made of")
                written[name] = rule.form.write([left.pop(one) for one in ours]).contiguous()
        if left:
            raise NotInLayout(f"this layout of files has no place for {_several(list(left))}")
        return written

    def names_of(self, ours: str, tensors: Iterable[str]) -> str:
        """Return what the file calls the module's tensor ``ours``; if it has no such tensor, ``ours``."""
        for name in tensors:
            found = self._rule_of(name)
            if found is not None and any(one.replace(INDEX, found[1]) == ours for one in found[0].ours):
                return name
        return ours

    @cached_property
    def _by_name(self) -> dict[str, TensorMap]:
        return {rule.theirs: rule for rule in self.maps}

    def _rule_of(self, name: str) -> tuple[TensorMap, str] | None:
        """Return the rule of a tensor in a file, and the number of its block."""
        if name in self._by_name and INDEX not in name:
            return self._by_name[name], ""
        for digits in re.finditer(r"\d+", name):
            rule = self._by_name.get(name[: digits.start()] + INDEX + name[digits.end() :])
            number = digits.group()
            if rule is not None and len(number) < 5 and number == str(int(number)) and int(number) < limits.DEPTH:
                return rule, number
        return None

    def _require_rule(self, name: str) -> tuple[TensorMap, str]:
        found = self._rule_of(name)
        if found is None:
            raise NotInLayout(f"this layout of files has no tensor {shown(name)}")
        return found

    def _missing(self, found: Mapping[str, tuple[TensorMap, str]]) -> Iterator[str]:
        groups = {rule.group for rule, _ in found.values()}
        depths: dict[str, int] = {}
        for rule, number in found.values():
            if rule.series is not None:
                depths[rule.series] = max(depths.get(rule.series, 0), int(number) + 1)
        for rule in self.maps:
            if rule.group and rule.group not in groups:
                continue
            for name in _numbered(rule.theirs, depths.get(rule.series or "", 1)):
                if name not in found:
                    yield name

    def _expected(self, state: Mapping[str, Tensor]) -> Iterator[str]:
        """Yield the names in a file that a state may fill, block by block."""
        for rule in self.maps:
            numbers = sorted({int(number) for one in rule.ours for number in _numbers(one, state)})
            yield from (rule.theirs.replace(INDEX, str(number)) for number in numbers)
            if INDEX not in rule.theirs:
                yield rule.theirs


def _numbers(pattern: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the numbers of blocks for which ``names`` has the name ``pattern``."""
    if INDEX in pattern:
        before, _, after = pattern.partition(INDEX)
        for name in names:
            number = name[len(before) : len(name) - len(after)]
            if name.startswith(before) and name.endswith(after) and number.isascii() and number.isdigit():
                yield number


def _numbered(pattern: str, depth: int) -> Iterator[str]:
    yield from (pattern.replace(INDEX, str(number)) for number in range(depth if INDEX in pattern else 1))


def _several(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown(name).strip("'") for name in names[:5]) + rest
