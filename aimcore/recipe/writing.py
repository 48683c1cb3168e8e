"""From components to plain values: the value's type determines its form; nothing is lost or silently converted."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import Problem
from aimcore.contracts.field_types import is_plain
from aimcore.contracts.messages import shown
from aimcore.contracts.structuring import join
from aimcore.registry.plugins import Plugins

Node = tuple[str, Any]


def plain(value: Any) -> Any:
    """Convert ``value`` to numbers, text, lists and mappings; a component becomes ``{"name": ..., **fields}``."""
    if attrs.has(type(value)):
        named = {"name": value.name} if isinstance(value, Component) else {}
        return named | {name: plain(field) for name, field in _children(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return sorted(value) if isinstance(value, frozenset) else value


def nodes(value: Any, path: str = "") -> Iterator[Node]:
    """Yield ``value`` and everything below it, each with its path."""
    yield path, value
    for name, child in _children(value):
        yield from nodes(child, join(path, name))


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if attrs.has(type(value)):
        yield from ((field.name, getattr(value, field.name)) for field in attrs.fields(type(value)) if field.init)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple | frozenset):
        yield from enumerate(value)


def unwritable(value: Any, plugins: Plugins) -> Iterator[Problem]:
    """Yield everything in ``value`` that a recipe cannot hold."""
    for path, node in nodes(value):
        if isinstance(node, Component):
            yield from _unlisted(path, node, plugins)
        elif isinstance(node, Mapping):
            yield from (Problem(path, f"keys must be text, got {shown(key)}") for key in node if type(key) is not str)
        elif not attrs.has(type(node)) and not isinstance(node, list | tuple | frozenset) and not is_plain(node):
            yield Problem(path, f"must be a finite number, text or a component, got {shown(node)} ({_type_name(node)})")


def _unlisted(path: str, component: Component, plugins: Plugins) -> Iterator[Problem]:
    registry = plugins.registry(component.role)
    if component.name not in registry or registry.get(component.name) is not type(component):
        broken = "".join(f"; {plugin}" for plugin in plugins.quarantined)
        yield Problem(
            path,
            f"{_type_name(component)} ({component.role}/{component.name}) is not supplied by any installed plugin, "
            f"so no recipe can name it: supply it by a hook of a plugin{broken}",
        )


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def round_trip_problems(before: Any, after: Any, path: str = "") -> Iterator[Problem]:
    """Yield the paths at which a value and the value read from its recipe differ."""
    if before == after:
        return
    below, back = dict(_children(before)), dict(_children(after))
    if below and type(before) is type(after) and below.keys() == back.keys():
        for name in below:
            yield from round_trip_problems(below[name], back[name], join(path, name))
    else:
        yield Problem(path, f"is {shown(before)}, but its recipe gives {shown(after)} back: write it so")
