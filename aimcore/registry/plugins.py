"""Plugins: entry points of the group ``aimcore`` -> pluggy -> frozen registries.

The steps are small and pure: find, leave out what is blocked, refuse clashes, load, register. aimcore's own plugins
take the same way as anybody's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeVar, overload

import attrs
import pluggy

from aimcore.contracts.component import Component
from aimcore.contracts.errors import PluginError
from aimcore.contracts.messages import did_you_mean
from aimcore.contracts.roles import ROLES
from aimcore.registry import hookspecs
from aimcore.registry.discovery import BLOCK, FoundPlugin, MissingExtra, Quarantined, blocked_names, find_plugins
from aimcore.registry.registry import NotLoaded, Registry, Supplier

C = TypeVar("C", bound=Component)
Hooks = Mapping[str, Callable[[], Sequence[type[Component]]]]
Supplied = Mapping[str, Sequence[type[Component]]]


@attrs.frozen(kw_only=True)
class Plugins:
    """Everything the installed plugins supply, and what was left out."""

    registries: Mapping[str, Registry[Any]]
    """One per role, by its name in the plural."""
    suppliers: tuple[Supplier, ...]
    """The plugins that are loaded."""
    quarantined: tuple[Quarantined, ...]
    blocked: tuple[Supplier, ...]
    missing_extras: tuple[MissingExtra, ...]

    @overload
    def registry(self, role: str) -> Registry[Any]: ...
    @overload
    def registry(self, role: type[C]) -> Registry[C]: ...
    def registry(self, role: str | type[Component]) -> Registry[Any]:
        """The registry of a role, given its class or its name.

        Raises:
            PluginError: there is no such role.
        """
        name = role if isinstance(role, str) else role.role
        if name not in self.registries:
            known = sorted(self.registries)
            raise PluginError(f"no role is called {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
        return self.registries[name]

    @property
    def not_loaded(self) -> tuple[NotLoaded, ...]:
        """Every plugin that was found and is not loaded, with its reason."""
        return _not_loaded(self.quarantined, self.missing_extras, self.blocked)

    def components_of(self, supplier: Supplier) -> Iterator[str]:
        """Yield what ``supplier`` supplies, as ``role/name``."""
        for role, registry in self.registries.items():
            yield from (f"{role}/{name}" for name in registry.names() if registry.supplier_of(name) == supplier)

    def version_of(self, distribution: str) -> str | None:
        """The version of a distribution that has plugins here, loaded or not; None if it has none."""
        every = (*self.suppliers, *(plugin.supplier for plugin in self.not_loaded))
        return {supplier.distribution: supplier.version for supplier in every}.get(distribution)

    def require_all(self) -> None:
        """A strict start.

        Raises:
            PluginError: some plugin is quarantined; all of them are named, each with its cause.
        """
        if self.quarantined:
            raise PluginError("; ".join(map(str, self.quarantined)) + f". Mend it, or leave it out with {BLOCK}=NAME")


@cache
def installed() -> Plugins:
    """The installed plugins, but for those that ``AIMCORE_BLOCK`` names. Loaded once per process.

    Raises:
        AimcoreError: nothing is installed, names clash, a hook is misspelt, or a supplied class is no component.
    """
    return load_plugins(entry_points(group=hookspecs.PROJECT), blocked_names())


def load_plugins(points: Iterable[EntryPoint], blocked: Collection[str] = (), *, strict: bool = False) -> Plugins:
    """Load the plugins that ``points`` name into frozen registries.

    Args:
        points: entry points, in any order.
        blocked: entry-point or distribution names to leave out; one that fits nothing is a warning.
        strict: whether a plugin that cannot be imported is an error at once, not only when it is used.

    Raises:
        PluginError: there are no plugins, a hook is misspelt, or (strict) a plugin cannot be imported.
        NameClash: two plugins or two components share a name.
        NotAComponent: a plugin supplies something else.
    """
    found = find_plugins(points, blocked)
    supplied, quarantined = _load(found.usable)
    plugins = Plugins(
        registries=_registries(supplied, _not_loaded(quarantined, found.missing_extras, found.blocked)),
        suppliers=tuple(supplied),
        quarantined=quarantined,
        blocked=found.blocked,
        missing_extras=found.missing_extras,
    )
    if strict:
        plugins.require_all()
    return plugins


def _load(
    found: Sequence[FoundPlugin],
) -> tuple[dict[Supplier, Supplied], tuple[Quarantined, ...]]:
    """Import plugins and call their hooks: what each supplies per role, and those that failed."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    supplied: dict[Supplier, Supplied] = {}
    quarantined = []
    for plugin in found:
        # Importing runs a stranger's code, which may fail in any way: it is kept, reported, and fails when used.
        try:
            manager.register(plugin.entry_point.load(), name=plugin.supplier.plugin)
            supplied[plugin.supplier] = {role: list(hook()) for role, hook in _hooks(manager, plugin).items()}
        except Exception as cause:  # noqa: BLE001
            quarantined.append(Quarantined(plugin.supplier, cause))
    _refuse_misspelt(manager, found)
    return supplied, tuple(quarantined)


def _hooks(manager: pluggy.PluginManager, plugin: FoundPlugin) -> Hooks:
    """The hooks that one plugin implements; calling them apart keeps track of who supplies what."""
    return {
        role.role: implementation.function
        for role in ROLES
        for implementation in getattr(manager.hook, role.role).get_hookimpls()
        if implementation.plugin_name == plugin.supplier.plugin
    }


def _refuse_misspelt(manager: pluggy.PluginManager, found: Sequence[FoundPlugin]) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = manager.get_name(error.plugin)
        supplier = next(plugin.supplier for plugin in found if plugin.supplier.plugin == name)
        known = sorted(role.role for role in ROLES)
        raise PluginError(f"{supplier}: {error}. The hooks are {', '.join(known)}") from error


def _not_loaded(
    quarantined: Iterable[Quarantined], missing: Iterable[MissingExtra], blocked: Iterable[Supplier]
) -> tuple[NotLoaded, ...]:
    """Every plugin that was found and is not loaded, with its reason."""
    return (
        *(NotLoaded(plugin.supplier, str(plugin)) for plugin in quarantined),
        *(NotLoaded(plugin.supplier, str(plugin)) for plugin in missing),
        *(NotLoaded(supplier, f"{supplier} is blocked by {BLOCK}") for supplier in blocked),
    )


def _registries(supplied: Mapping[Supplier, Supplied], absent: Sequence[NotLoaded]) -> Mapping[str, Registry[Any]]:
    registries: dict[str, Registry[Any]] = {role.role: Registry(role) for role in ROLES}
    for supplier, components in supplied.items():
        for role, classes in components.items():
            for component in classes:
                registries[role].add(component, supplier)
    for registry in registries.values():
        registry.freeze(absent)
    return MappingProxyType(registries)
