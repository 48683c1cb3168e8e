"""Construct settings and components from plain values, such as those of a JSON file.

This module only resolves names: the class of a mapping, and the values of its fields. The constructor of each value
checks it, and its problems are reported with the path of the value in the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from aimcore.contracts.component import Checked
from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.contracts.field_types import (
    field_types,
    is_component,
    is_literal,
    is_literal_value,
    is_mapping,
    is_sequence,
    is_settings,
    item_types,
    members,
)
from aimcore.contracts.messages import MOST_REPORTED, unknown_field
from aimcore.contracts.type_checks import fit_fields, more_not_checked, unfit

Lookup = Callable[[type[Any], Any], type[Any]]
"""Finds the class of a component from its declared role and its plain value. Raises ValueError if no class fits."""

_FAILED: Final = object()
"""Marks a value that could not be made."""
_CONSTRUCTOR_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


def structure(value: Any, kind: type[Any], lookup: Lookup) -> Any:
    """Construct a ``kind`` from plain values.

    Args:
        value: plain values: numbers, text, None, lists and mappings.
        kind: a class of settings or a component.
        lookup: finds the classes of components by name.

    Raises:
        InvalidValue: the value is invalid; lists every problem with its path.
    """
    structuring = _Structuring(lookup)
    made = structuring.made(value, kind, "")
    if made is not _FAILED:
        structuring.check(made, kind, "")
    if structuring.problems:
        raise InvalidValue(kind.__name__, structuring.problems)
    return made


def join(*parts: object) -> str:
    """Join the parts of a path.

    >>> join("probes", 0, "epochs")
    'probes.0.epochs'
    """
    return ".".join(str(part) for part in parts if part != "")


@attrs.define
class _Structuring:
    lookup: Lookup
    problems: list[Problem] = attrs.field(factory=list)

    def made(self, value: Any, kind: Any, path: str) -> Any:
        """Replace the plain values of components and settings in ``value``; constructors check everything else."""
        candidates = _candidate_types(value, kind)
        if len(candidates) == 1:
            return self._made_as(value, candidates[0], path)
        for member in candidates:
            attempt = _Structuring(self.lookup)
            made = attempt.made(value, member, path)
            if not attempt.problems and not unfit(made, member, path):
                return made
        return value

    def check(self, value: Any, kind: Any, path: str) -> None:
        """Report wrong types in ``value``; for values that no constructor receives."""
        self.problems += [Problem(*misfit) for misfit in unfit(value, kind, path)]

    def _made_as(self, value: Any, kind: Any, path: str) -> Any:
        """Construct ``value`` as ``kind``, which its shape implies."""
        if is_component(kind):
            given = {"name": value} if isinstance(value, str) else value
            try:
                cls = self.lookup(kind, given)
            except ValueError as error:
                self.problems.append(Problem(path, str(error)))
                return _FAILED
            return self._constructed({key: given[key] for key in given if key != "name"}, cls, path)
        if is_settings(kind):
            return self._constructed(value, kind, path)
        if is_sequence(kind):
            kinds = item_types(kind, len(value))
            if len(kinds) != len(value):
                return value
            made = self._each(zip(range(len(value)), value, kinds, strict=True), path)
            return made if made is _FAILED else list(made.values())
        kinds = (*getattr(kind, "__args__", ()), Any, Any)
        return self._each(((key, item, kinds[1]) for key, item in value.items()), path)

    def _each(self, items: Iterable[tuple[Any, Any, Any]], path: str) -> Any:
        """Construct every ``(key, value, type)``; stop after ``MOST_REPORTED`` failures."""
        made: dict[Any, Any] = {}
        kinds: dict[Any, Any] = {}
        failed = 0
        for key, value, kind in items:
            made[key], kinds[key] = self.made(value, kind, join(path, key)), kind
            failed += made[key] is _FAILED
            if failed == MOST_REPORTED:
                self.problems.append(Problem(path, more_not_checked()))
                return _FAILED
        return self._check_all(made, kinds, path) if failed else made

    def _check_all(self, made: Mapping[Any, Any], kinds: Mapping[Any, Any], path: str) -> Any:
        """Report wrong types in the values that could be made, because their container cannot be made."""
        for key, value in made.items():
            if value is not _FAILED:
                self.check(value, kinds[key], join(path, key))
        return _FAILED

    def _constructed(self, given: Mapping[str, Any], cls: type[Any], path: str) -> Any:
        """Construct a ``cls``; its constructor checks the fields."""
        fields = {field.name: field for field in attrs.fields(cls) if field.init}
        before = len(self.problems)
        unknown = sorted((key for key in given if key not in fields), key=str)
        self.problems += [Problem(join(path, key), unknown_field(key, list(fields))) for key in unknown[:MOST_REPORTED]]
        if len(unknown) > MOST_REPORTED:
            self.problems.append(Problem(path, f"{len(unknown) - MOST_REPORTED:,} more unknown fields"))
        required = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in given]
        self.problems += [Problem(join(path, name), "is required") for name in required]
        types = field_types(cls, unresolved=Any)
        made = {name: self.made(given[name], types[name], join(path, name)) for name in fields if name in given}
        if len(self.problems) > before:
            return self._check_all(made, types, path)
        try:
            value = cls(**{fields[name].alias: value for name, value in made.items()})
            misfits = () if issubclass(cls, Checked) else fit_fields(value)  # a plain attrs class checks nothing itself
            self.problems += [Problem(join(path, below), message) for below, message in misfits]
            return _FAILED if misfits else value
        except InvalidValue as error:
            self.problems += [Problem(join(path, below), message) for below, message in error.problems]
        except _CONSTRUCTOR_ERRORS as error:
            self.problems.append(Problem(path, f"{type(error).__name__}: {error}"))
        return _FAILED


def _candidate_types(value: Any, kind: Any) -> list[Any]:
    """The members of ``kind`` that the shape of ``value`` allows; none for plain values."""
    every = members(kind)
    if isinstance(value, Mapping):
        return [member for member in every if is_component(member) or is_settings(member) or is_mapping(member)]
    if isinstance(value, list | tuple):
        found = [member for member in every if is_sequence(member)]
    else:
        is_text = isinstance(value, str) and any(
            member is str or (is_literal(member) and is_literal_value(value, member)) for member in every
        )
        found = [member for member in every if is_component(member)] if isinstance(value, str) and not is_text else []
    return found or [kind for _ in (0,) if is_component(kind)]  # its lookup lists the known names
