"""Type checks of fields, which every constructor of settings and components runs.

Types that recipes cannot contain (paths, callables, types that only type checkers import) are not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Real
from typing import Any, get_args, get_origin

import attrs

from aimcore.contracts.field_types import (
    NUMBERS_AND_TEXT,
    describe,
    field_types,
    is_component,
    is_literal,
    is_literal_value,
    is_mapping,
    is_sequence,
    is_settings,
    is_union,
    item_types,
    members,
    unfit_number,
)
from aimcore.contracts.messages import MOST_REPORTED, shown

Misfits = list[tuple[str, str]]
"""Pairs of a path and a message for each value of a wrong type."""
_TYPES = "_declared_types"


def fit_fields(value: Any) -> Misfits:
    """Return the fields of ``value`` that do not have their declared types.

    Lists are accepted for tuples, as in recipes, and replaced by tuples, so that a frozen value cannot change.

    Args:
        value: a new value of an attrs class.
    """
    found: Misfits = []
    for name, kind in _types_of(type(value)).items():
        given = getattr(value, name)
        made = _fitted(given, kind, name, found)
        if made is not given:
            object.__setattr__(value, name, made)
    return found


def unfit(value: Any, kind: Any, path: str) -> Misfits:
    """Return the parts of ``value``, at ``path``, that do not have the type ``kind``."""
    found: Misfits = []
    if _is_checkable(kind):
        _fitted(value, kind, path, found)
    return found


def more_not_checked() -> str:
    """The message after the last reported item of a list or mapping."""
    return f"items after the first {MOST_REPORTED} wrong ones are not checked"


def _types_of(cls: type[Any]) -> Mapping[str, Any]:
    """The declared types that can be checked, by field; the class caches them."""
    if _TYPES not in vars(cls):
        known = field_types(cls, unresolved=Any)
        setattr(cls, _TYPES, {name: kind for name, kind in known.items() if _is_checkable(kind)})
    types: Mapping[str, Any] = vars(cls)[_TYPES]
    return types


def _is_checkable(kind: Any) -> bool:
    return (
        kind in (*NUMBERS_AND_TEXT, None)
        or any(has_form(kind) for has_form in (is_union, is_literal, is_sequence, is_mapping))
        or is_component(kind)
        or is_settings(kind)
    )


def _fitted(value: Any, kind: Any, path: str, found: Misfits) -> Any:
    """Return ``value`` as ``kind``, unchanged if possible; add wrong types to ``found``."""
    if type(value) is kind and not unfit_number(value, kind):
        return value
    if kind is float and isinstance(value, float):
        value = float(value)  # numpy's float64 is one
    if is_union(kind):
        return _in_union(value, kind, path, found)
    if is_sequence(kind):
        return _sequence(value, kind, path, found)
    if is_mapping(kind):
        return _mapping(value, kind, path, found)
    if not _is_one(value, kind):
        found.append((path, _refusal(value, kind)))
    return value


def _is_one(value: Any, kind: Any) -> bool:
    """Whether ``value`` is a ``kind``, which is neither a container nor a union."""
    if kind is None:
        return value is None
    if kind in NUMBERS_AND_TEXT:
        # Exact types: True is not a whole number, and a recipe would not load numpy's numbers as such.
        is_number = type(value) is kind or (kind is float and type(value) is int)
        return is_number and not unfit_number(value, kind)
    if is_literal(kind):
        return is_literal_value(value, kind)
    return isinstance(value, kind) if is_component(kind) or is_settings(kind) else True


def _in_union(value: Any, kind: Any, path: str, found: Misfits) -> Any:
    alike = []
    for member in sorted(get_args(kind), key=lambda member: _class_of(member) is not type(value)):
        misfits: Misfits = []
        made = _fitted(value, member, path, misfits)
        if not misfits:
            return made
        alike += [misfits] if _has_shape(value, member) else []
    # The misfits of a single candidate say more than a refusal of the whole union.
    found += alike[0] if len(alike) == 1 else [(path, _refusal(value, kind))]
    return value


def _has_shape(value: Any, kind: Any) -> bool:
    return (is_sequence(kind) and isinstance(value, list | tuple)) or (is_mapping(kind) and isinstance(value, Mapping))


def _class_of(kind: Any) -> Any:
    """The class in a declared type: ``tuple`` of ``tuple[int, ...]``."""
    return get_origin(kind) or kind


def _sequence(value: Any, kind: Any, path: str, found: Misfits) -> Any:
    origin = _class_of(kind)
    is_set = origin is frozenset
    if not isinstance(value, list | tuple) and not (is_set and isinstance(value, AbstractSet)):
        found.append((path, _refusal(value, kind)))
        return value
    kinds = item_types(kind, len(value))
    if len(kinds) != len(value):
        found.append((path, f"must have {len(kinds)} items, got {len(value)}: {shown(value)}"))
        return value
    made = _each(zip(range(len(value)), value, kinds, strict=True), path, found)
    if len(made) < len(value):
        return value
    make = origin if origin in (list, frozenset) else tuple
    is_same = isinstance(value, make) and all(one is other for one, other in zip(made, value, strict=True))
    return value if is_same else make(made)


def _mapping(value: Any, kind: Any, path: str, found: Misfits) -> Any:
    if not isinstance(value, Mapping):
        found.append((path, _refusal(value, kind)))
        return value
    key_kind, value_kind = get_args(kind) or (Any, Any)
    _each(((key, key, key_kind) for key in value), path, found)
    items = _each(((key, item, value_kind) for key, item in value.items()), path, found)
    if len(items) < len(value):
        return value
    made = dict(zip(value, items, strict=True))
    return value if all(made[key] is item for key, item in value.items()) else made


def _each(items: Iterable[tuple[Any, Any, Any]], path: str, found: Misfits) -> list[Any]:
    """Check every ``(key, value, type)``; stop after ``MOST_REPORTED`` wrong ones and return fewer."""
    made: list[Any] = []
    before = len(found)
    for key, value, kind in items:
        if len(found) - before >= MOST_REPORTED:
            found.append((path, more_not_checked()))
            break
        made.append(_fitted(value, kind, f"{path}.{key}", found))
    return made


def _refusal(value: Any, kind: Any) -> str:
    hint = next((hint for member in members(kind) if (hint := _hint(value, member))), "")
    given = "null" if value is None else str(value).lower() if isinstance(value, bool) else shown(value)
    return f"must be {describe(kind)}, got {given}{hint}"


def _hint(value: Any, kind: Any) -> str:
    """Suggest what to write instead of ``value``, if the intention is clear."""
    takes_class = is_component(kind) or is_settings(kind)
    if isinstance(value, type):
        return f": write {_call(value)}" if takes_class and issubclass(value, kind) else ""
    if is_component(kind) and isinstance(value, str):
        return _constructor_hint(value, kind)
    if takes_class and isinstance(value, Mapping):
        return f": write {kind.__name__}(...)" if is_settings(kind) else ""
    if is_sequence(kind) and not isinstance(value, list | tuple) and _is_item(value, kind):
        return (
            f": write [{value!r}]" if isinstance(value, int | float | str) else f": write [{type(value).__name__}(...)]"
        )
    return _number(value, kind)


def _number(value: Any, kind: Any) -> str:
    """Say why a number does not fit, or suggest the plain number for a value such as 1e3 or numpy's."""
    if kind not in (int, float) or isinstance(value, bool) or not isinstance(value, Real):
        return ""
    if unfit_number(value, kind):
        return f": {unfit_number(value, kind)}"
    number = float(value)
    if number.is_integer() and abs(number) < 2**63:
        return f": write {int(number)}"
    return f": write {number}" if kind is float else ""


def _is_item(value: Any, kind: Any) -> bool:
    misfits: Misfits = []
    for below in item_types(kind, 1):
        _fitted(value, below, "", misfits)
    return not misfits


def _constructor_hint(name: str, role: type[Any]) -> str:
    """Suggest the imported class whose name in recipes is ``name``."""
    classes = list(role.__subclasses__())
    for cls in classes:
        if vars(cls).get("name") == name:
            return f": write {_call(cls)}, from {cls.__module__.partition('.')[0]}"
        classes += cls.__subclasses__()
    return ": only recipes refer to components by name; import its class and construct it"


def _call(cls: type[Any]) -> str:
    """The call that constructs a ``cls``."""
    required = any(field.init and field.default is attrs.NOTHING for field in attrs.fields(cls))
    return f"{cls.__name__}({'...' if required else ''})"
