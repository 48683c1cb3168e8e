"""The installed plugins together with a component that is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from aimcore.contracts.component import Component
from aimcore.recipe.writing import nodes
from aimcore.registry.plugins import Plugins, installed
from aimcore.registry.registry import Registry, Supplier

_HERE = Supplier("not-installed", "0", "checked")


def plugins_with(component: Component) -> Plugins:
    """Return the installed plugins with the classes of ``component`` and its parts; these replace equal names.

    Raises:
        NotAComponent: a class cannot be registered.
    """
    classes = {type(node) for _, node in nodes(component) if isinstance(node, Component)}
    registries = installed().registries
    for role in sorted({cls.role for cls in classes}):
        needed = {cls.name: cls for cls in classes if cls.role == role}
        registries = {**registries, role: _with(registries[role], needed)}
    return attrs.evolve(installed(), registries=MappingProxyType(dict(registries)))


def _with(known: Registry[Any], needed: Mapping[str, type[Component]]) -> Registry[Any]:
    made: Registry[Any] = Registry(known.role)
    for name, cls in known.items():
        if name not in needed:
            made.add(cls, known.supplier_of(name))
    for cls in needed.values():
        made.add(cls, _HERE)
    made.freeze()
    return made
