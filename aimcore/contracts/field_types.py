"""Declared types of the fields of settings and components."""

import inspect
import json
import math
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

import attrs

NUMBERS_AND_TEXT = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
"""The plain types of values in a recipe, in words for users."""


def is_component(kind: Any) -> TypeGuard[type[Any]]:
    """Whether a declared type is a role, or a component class."""
    # Checked by attributes, because this module cannot import the base class from a module above it.
    return isinstance(kind, type) and hasattr(kind, "role") and hasattr(kind, "examples")


def is_settings(kind: Any) -> TypeGuard[type[Any]]:
    """Whether a declared type is an attrs class that is not a component."""
    return isinstance(kind, type) and attrs.has(kind) and not is_component(kind)


def is_union(kind: Any) -> bool:
    """Whether a declared type is ``X | Y``."""
    return get_origin(kind) in (Union, types.UnionType)


def is_literal(kind: Any) -> bool:
    """Whether a declared type lists its values."""
    return get_origin(kind) is Literal


def is_literal_value(value: Any, kind: Any) -> bool:
    """Whether ``value`` is one of the values that a ``Literal`` lists."""
    # True == 1, hence the types.
    return any(type(value) is type(known) and value == known for known in get_args(kind))


def is_mapping(kind: Any) -> bool:
    """Whether a declared type is a ``Mapping`` or ``dict``."""
    return kind in (dict, Mapping) or get_origin(kind) in (dict, Mapping)


def is_sequence(kind: Any) -> bool:
    """Whether values of a declared type are lists in recipes."""
    containers = (tuple, list, frozenset, Sequence)
    return kind in containers or get_origin(kind) in containers


def members(kind: Any) -> tuple[Any, ...]:
    """The members of a union without None, or ``kind`` itself."""
    every = get_args(kind) if is_union(kind) else (kind,)
    return tuple(member for member in every if member is not type(None))


def item_types(kind: Any, length: int) -> tuple[Any, ...]:
    """The declared type of each of ``length`` items; for tuples of fixed length, all declared types."""
    declared = get_args(kind) or (Any,)
    if get_origin(kind) is tuple and declared[-1] is not Ellipsis:
        return declared
    return (declared[0],) * length


_UNRESOLVED = (NameError, AttributeError, KeyError, TypeError, SyntaxError)
"""Errors from an annotation whose names do not exist at run time, such as names that only type checkers import."""


def field_types(cls: type[Any], unresolved: Any = None) -> dict[str, Any]:
    """The declared type of each field of an attrs class that its constructor takes.

    Class variables are not resolved: their annotations may use names that only type checkers import.

    Args:
        cls: the class.
        unresolved: returned for a type whose name does not exist at run time; None raises the error instead.
    """
    types = {}
    for field in attrs.fields(cls):
        if field.init:
            try:
                types[field.name] = _resolved(cls, field)
            except _UNRESOLVED:
                if unresolved is None:
                    raise
                types[field.name] = unresolved
    return types


def _resolved(cls: type[Any], field: "attrs.Attribute[Any]") -> Any:
    declared: Any = field.type
    if not isinstance(declared, str):
        return Any if declared is None else declared
    owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
    holder = types.SimpleNamespace(__annotations__={field.name: declared})
    return get_type_hints(holder, globalns=vars(sys.modules[owner.__module__]))[field.name]


def describe(kind: Any) -> str:
    """A declared type in words, the same for readers of recipes and of Python.

    >>> describe(tuple[int, ...] | None)
    'a list or null'
    """
    if is_union(kind):
        return " or ".join(describe(member) for member in get_args(kind))
    if is_literal(kind):
        return " or ".join(json.dumps(value) for value in get_args(kind))
    if is_component(kind):
        return f"a component ({kind.__name__})"
    if is_settings(kind):
        return f"settings ({kind.__name__})"
    if is_sequence(kind):
        return "a list"
    if is_mapping(kind):
        return "a mapping"
    return NUMBERS_AND_TEXT.get(type(None) if kind is None else kind, str(kind))


def with_article(kind: type[Any]) -> str:
    """``"an Ordering"``."""
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def unfit_number(value: Any, kind: Any) -> str:
    """Why a number cannot be a ``kind``, ``int`` or ``float``; empty if it can, or if ``value`` is not a number.

    Whole numbers have at most 64 bits, with or without a sign, as in numpy and torch; floats are finite.
    """
    if kind is int and type(value) is int:
        return "" if -(2**63) <= value < 2**64 else "it has more than 64 bits"
    if kind is float and isinstance(value, int | float):
        return "" if abs(value) <= sys.float_info.max else "it is not finite"  # NaN compares false
    return ""


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, boolean or None that JSON can hold."""
    return type(value) in NUMBERS_AND_TEXT and not (isinstance(value, float) and not math.isfinite(value))
