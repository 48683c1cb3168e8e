"""What the fields of settings and components are declared as."""

import inspect
import json
import math
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

import attrs

from aimcore.component import Component

NUMBERS_AND_TEXT = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
"""The plain values a recipe is made of, in a reader's words."""


def is_component(kind: Any) -> TypeGuard[type[Component]]:
    """Whether a declared type is a role, or a component class."""
    return isinstance(kind, type) and issubclass(kind, Component) and hasattr(kind, "role")


def is_union(kind: Any) -> bool:
    """Whether a declared type is ``X | Y``."""
    return get_origin(kind) in (Union, types.UnionType)


def is_literal(kind: Any) -> bool:
    """Whether a declared type lists its values."""
    return get_origin(kind) is Literal


def is_mapping(kind: Any) -> bool:
    """Whether a declared type is a ``Mapping`` or ``dict``."""
    return kind in (dict, Mapping) or get_origin(kind) in (dict, Mapping)


def is_sequence(kind: Any) -> bool:
    """Whether a declared type is written as a list."""
    containers = (tuple, list, frozenset, Sequence)
    return kind in containers or get_origin(kind) in containers


def members(kind: Any) -> tuple[Any, ...]:
    """The types that ``kind`` may be, without None."""
    every = get_args(kind) if is_union(kind) else (kind,)
    return tuple(member for member in every if member is not type(None))


def item_types(kind: Any, length: int) -> tuple[Any, ...]:
    """The declared type of each of ``length`` items; as many as declared where that number is fixed."""
    declared = get_args(kind) or (Any,)
    if get_origin(kind) is tuple and declared[-1] is not Ellipsis:
        return declared
    return (declared[0],) * length


def field_types(cls: type[Any]) -> dict[str, Any]:
    """The declared type of each field of an attrs class that its constructor takes.

    Only the fields are looked at: class variables may be annotated with names that only type checkers import.
    """
    return {field.name: _resolved(cls, field) for field in attrs.fields(cls) if field.init}


def _resolved(cls: type[Any], field: "attrs.Attribute[Any]") -> Any:
    declared: Any = field.type
    if not isinstance(declared, str):
        return Any if declared is None else declared
    owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
    holder = types.SimpleNamespace(__annotations__={field.name: declared})
    return get_type_hints(holder, globalns=vars(sys.modules[owner.__module__]))[field.name]


def resolve(cls: type[Any]) -> None:
    """Replace annotations that are text by their types, as :func:`attrs.resolve_types` does, fields only."""
    declared = field_types(cls)
    for field in attrs.fields(cls):
        if isinstance(field.type, str) and field.name in declared:
            object.__setattr__(field, "type", declared[field.name])


def describe(kind: Any) -> str:
    """A declared type in a reader's words."""
    if is_union(kind):
        return " or ".join(map(describe, get_args(kind)))
    if is_literal(kind):
        return " or ".join(json.dumps(value) for value in get_args(kind))
    if is_component(kind):
        return f"a component ({kind.__name__})"
    if is_sequence(kind):
        return "a list"
    if is_mapping(kind) or attrs.has(kind):
        return "a mapping"
    return NUMBERS_AND_TEXT.get(kind, str(kind))


def is_plain(value: Any) -> bool:
    """Whether a value can stand in JSON as it is."""
    return type(value) in NUMBERS_AND_TEXT and not (isinstance(value, float) and not math.isfinite(value))
