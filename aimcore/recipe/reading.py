"""From plain values to components: a strict cattrs converter, and its errors with their paths."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NoReturn, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    CattrsError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from aimcore.contracts.component import Component
from aimcore.contracts.errors import InvalidValue, Problem, RecipeError, UnknownComponent
from aimcore.contracts.field_types import (
    NUMBERS_AND_TEXT,
    describe,
    is_component,
    is_literal,
    is_literal_value,
    is_mapping,
    is_sequence,
    is_union,
    item_types,
    members,
    resolve,
    with_article,
)
from aimcore.contracts.messages import shown, unknown_field
from aimcore.registry.plugins import Plugins

MOST_REPORTED = 25
"""Items of one list or mapping that errors are made for: each takes a while, and a file may hold millions."""

Hook = Callable[[Any, Any], Any]


def structured(value: Any, kind: type[Any], plugins: Plugins, hints: Mapping[str, str]) -> Any:
    """``value`` as a ``kind``, its components looked up among ``plugins``.

    Args:
        value: plain values.
        kind: the class to make.
        plugins: who supplies components.
        hints: what to say besides where ``"role/name"`` is not found.

    Raises:
        RecipeError: every problem, each with its path.
    """
    try:
        return _converter(plugins, hints).structure(value, kind)
    except (ValueError, CattrsError) as error:
        raise RecipeError(tuple(problems_in(error))) from error


def _converter(plugins: Plugins, hints: Mapping[str, str]) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in NUMBERS_AND_TEXT:
        converter.register_structure_hook(kind, _number_or_text)
    converter.register_structure_hook_func(is_literal, _literal)
    converter.register_structure_hook_factory(is_sequence, lambda kind: _sequence(kind, converter))
    converter.register_structure_hook_factory(is_mapping, lambda kind: _mapping(kind, converter))
    converter.register_structure_hook_factory(is_union, lambda kind: _union(kind, converter))
    converter.register_structure_hook_factory(attrs.has, lambda kind: _fields(kind, converter))
    fields = cache(lambda cls: _fields(cls, converter))
    lookup = partial(_lookup, plugins=plugins, hints=hints)
    converter.register_structure_hook_factory(is_component, lambda kind: _component(kind, lookup, fields))
    return converter


def _refuse(value: Any, kind: Any) -> NoReturn:
    given = "null" if value is None else str(value).lower() if isinstance(value, bool) else shown(value)
    raise ValueError(f"must be {describe(kind)}, got {given}")


def _number_or_text(value: Any, kind: type[Any]) -> Any:
    """Plain values of exactly the declared type, but for whole numbers where any number is meant."""
    if kind is float and type(value) is int:
        return float(value) if abs(value) < 2**1023 else _refuse(value, kind)
    if type(value) is not kind:
        _refuse(value, kind)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"must be finite, got {value}")
    return value


def _literal(value: Any, kind: Any) -> Any:
    if not is_literal_value(value, kind):
        _refuse(value, kind)
    return value


def _sequence(kind: Any, converter: cattrs.Converter) -> Hook:
    origin = get_origin(kind) or kind
    make = origin if origin in (list, frozenset) else tuple

    def structure(value: Any, _: Any) -> Any:
        # Text is a sequence too: tuple("ab") would pass silently.
        if not isinstance(value, list | tuple):
            _refuse(value, kind)
        kinds = item_types(kind, len(value))
        if len(kinds) != len(value):
            raise ValueError(f"must have {len(kinds)} items, got {len(value)}")
        return make(_each(zip(range(len(value)), value, kinds, strict=True), kind, converter))

    return structure


def _mapping(kind: Any, converter: cattrs.Converter) -> Hook:
    key_kind, value_kind = get_args(kind) or (str, Any)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            _refuse(value, kind)
        keys = _each(((key, key, key_kind) for key in value), kind, converter)
        return dict(zip(keys, _each(((key, value[key], value_kind) for key in value), kind, converter), strict=True))

    return structure


def _each(items: Iterable[tuple[Any, Any, Any]], whole: Any, converter: cattrs.Converter) -> list[Any]:
    """Structure every ``(place, value, type)`` and report all that fail, up to a number that nobody reads."""
    done: list[Any] = []
    failed: list[Exception] = []
    for place, value, kind in items:
        try:
            done.append(converter.structure(value, kind))
        except (ValueError, CattrsError) as error:
            error.add_note(IterableValidationNote(f"item {place!r}", place, kind))
            failed.append(error)
        if len(failed) == MOST_REPORTED:
            failed.append(ValueError(f"items after the first {MOST_REPORTED} wrong ones are not checked"))
            break
    if failed:
        raise IterableValidationError("items", failed, whole)
    return done


def _union(kind: Any, converter: cattrs.Converter) -> Hook:
    candidates = members(kind)

    def structure(value: Any, _: Any) -> Any:
        if value is None and type(None) in get_args(kind):
            return None
        fitting = [member for member in candidates if _may_be(value, member)]
        if len(fitting) == 1:  # its own error says more
            return converter.structure(value, fitting[0])
        for member in sorted(fitting, key=lambda member: member is not type(value)):
            try:
                return converter.structure(value, member)
            except (ValueError, CattrsError):
                continue
        _refuse(value, kind)

    return structure


def _may_be(value: Any, kind: Any) -> bool:
    """Whether ``value`` has the shape of ``kind``; a bare name may be a component."""
    if isinstance(value, Mapping):
        return is_mapping(kind) or attrs.has(kind) or is_component(kind)
    if isinstance(value, list | tuple):
        return is_sequence(kind)
    return kind in NUMBERS_AND_TEXT or is_literal(kind) or (isinstance(value, str) and is_component(kind))


def _fields(cls: type[Any], converter: cattrs.Converter) -> Hook:
    """Fields of a class, strictly; all that are wrong are reported."""
    resolve(cls)
    generated = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _: Any) -> Any:
        return generated(value, cls) if isinstance(value, Mapping) else _refuse(value, cls)

    return structure


def _component(kind: type[Component], lookup: Callable[[Any, Any], type[Any]], fields: Callable[[Any], Hook]) -> Hook:
    """A component of the role, by the name it was written with; a bare name means its defaults."""

    def structure(value: Any, _: Any) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        cls = lookup(kind, given)
        return fields(cls)({key: given[key] for key in given if key != "name"}, cls)

    return structure


def _lookup(kind: type[Component], given: Any, plugins: Plugins, hints: Mapping[str, str]) -> type[Component]:
    """The class that ``given`` names, if it is of the declared kind."""
    registry = plugins.registry(kind.role)
    fitting = ", ".join(name for name, known in registry.items() if issubclass(known, kind)) or "none"
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ValueError(f"must be a component with its 'name'; there are {fitting}; got {shown(given)}")
    name = given["name"]
    try:
        cls = registry.get(name)
    except UnknownComponent as error:
        hint = hints.get(f"{kind.role}/{name}")
        # What helps comes before the list of all there is.
        asked, *known = str(error).split("; ", 1)
        raise ValueError("; ".join((asked, *([hint] if hint else []), *known))) from error
    if not issubclass(cls, kind):
        raise ValueError(f"expected {with_article(kind)}, got {shown(name)}; there are {fitting}")
    return cls


def problems_in(error: BaseException, path: str = "") -> Iterator[Problem]:
    """The single problems in a tree of cattrs errors, each with its path (``"objective.head.width"``)."""
    if isinstance(error, BaseValidationError):
        for part in error.exceptions:
            yield from problems_in(part, join(path, *_place(part)))
    elif isinstance(error, InvalidValue):
        yield from (Problem(join(path, below), message) for below, message in error.problems)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl) if field.init]
        extras = sorted(error.extra_fields, key=str)
        yield from (Problem(join(path, extra), unknown_field(extra, known)) for extra in extras[:MOST_REPORTED])
        if len(extras) > MOST_REPORTED:
            yield Problem(path, f"{len(extras) - MOST_REPORTED:,} more unknown fields")
    elif isinstance(error, KeyError) and _place(error):
        yield Problem(path, "is required")
    elif isinstance(error, ValueError | CattrsError):
        yield Problem(path, str(error))
    else:
        yield Problem(path, f"{type(error).__name__}: {error}")


def _place(error: BaseException) -> tuple[Any, ...]:
    """The field or index that an error is about, as cattrs noted it."""
    notes = getattr(error, "__notes__", ())
    return tuple(
        note.name if isinstance(note, AttributeValidationNote) else note.index
        for note in notes
        if isinstance(note, AttributeValidationNote | IterableValidationNote)
    )


def join(*parts: object) -> str:
    """A path from its parts: ``join("probes", 0, "epochs")`` is ``"probes.0.epochs"``.

    >>> join("probes", 0, "epochs")
    'probes.0.epochs'
    """
    return ".".join(str(part) for part in parts if part != "")
