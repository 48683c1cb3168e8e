"""From plain values to components: names of components are looked up among the plugins."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from aimcore.contracts.component import Component
from aimcore.contracts.errors import InvalidValue, RecipeError, UnknownComponent
from aimcore.contracts.field_types import with_article
from aimcore.contracts.messages import shown
from aimcore.contracts.structuring import structure
from aimcore.registry.plugins import Plugins


def structured(value: Any, kind: type[Any], plugins: Plugins, hints: Mapping[str, str]) -> Any:
    """Convert ``value`` to a ``kind``; components are looked up among ``plugins``.

    Args:
        value: plain values.
        kind: the class to create.
        plugins: the plugins that supply the components.
        hints: text to add to the message if ``"role/name"`` is not found.

    Raises:
        RecipeError: lists every problem with its path.
    """
    try:
        return structure(value, kind, partial(_lookup, plugins=plugins, hints=hints))
    except InvalidValue as error:
        raise RecipeError(error.problems) from error


def _lookup(kind: type[Component], given: Any, plugins: Plugins, hints: Mapping[str, str]) -> type[Component]:
    """Return the class that ``given`` names, which must be of the declared kind."""
    registry = plugins.registry(kind.role)
    fitting = ", ".join(name for name, known in registry.items() if issubclass(known, kind)) or "none"
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ValueError(f"must be a component with its 'name'; there are {fitting}; got {shown(given)}")
    name = given["name"]
    try:
        cls = registry.get(name)
    except UnknownComponent as error:
        hint = hints.get(f"{kind.role}/{name}")
        # The hint comes before the list of known names.
        asked, *known = str(error).split("; ", 1)
        raise ValueError("; ".join((asked, *([hint] if hint else []), *known))) from error
    if not issubclass(cls, kind):
        raise ValueError(f"expected {with_article(kind)}, got {shown(name)}; there are {fitting}")
    return cls
