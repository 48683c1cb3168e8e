"""Tables that map the tensors of a file to a module's own names, in both directions.

One table describes a layout of files: :meth:`TensorTable.read` converts the tensors of a file, and
:meth:`TensorTable.write` makes the tensors of a file from a module's state, by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import attrs
from torch import Tensor

from aimcore.contracts import limits
from aimcore.contracts.messages import shown
from aimcore.contracts.tensor_forms import SAME, NotInLayout, TensorForm

INDEX = "{i}"
"""Stands for the number of a block in a name."""


@attrs.frozen
class TensorMap:
    """A rule: the tensor ``theirs`` of a file is the tensor (or tensors) ``ours`` of a module."""

    theirs: str
    """Name in the file; ``{i}`` stands for the number of a block."""
    ours: tuple[str, ...]
    """Names in the module, with ``{i}`` in the same meaning."""
    form: TensorForm = SAME
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
