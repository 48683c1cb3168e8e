"""Loading of plugins: entry points of the group ``aimcore`` -> pluggy -> frozen registries.

The steps are small and pure: find, remove blocked ones, refuse clashes, load, register. aimcore's own plugins are
loaded like all others.
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
    """The components of all loaded plugins, and the plugins that are not loaded."""

    registries: Mapping[str, Registry[Any]]
    """One per role, by the role's name in the plural."""
    suppliers: tuple[Supplier, ...]
    """The loaded plugins."""
    quarantined: tuple[Quarantined, ...]
    blocked: tuple[Supplier, ...]
    missing_extras: tuple[MissingExtra, ...]

    @overload
    def registry(self, role: str) -> Registry[Any]: ...
    @overload
    def registry(self, role: type[C]) -> Registry[C]: ...
    def registry(self, role: str | type[Component]) -> Registry[Any]:
        """Return the registry of a role, given its class or its name.

        Raises:
            PluginError: the role is unknown.
        """
        name = role if isinstance(role, str) else role.role
        if name not in self.registries:
            known = sorted(self.registries)
            raise PluginError(f"no role is called {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
        return self.registries[name]

    @property
    def not_loaded(self) -> tuple[NotLoaded, ...]:
        """Return every plugin that was found but is not loaded, with the reason."""
        return _not_loaded(self.quarantined, self.missing_extras, self.blocked)

    def components_of(self, supplier: Supplier) -> Iterator[str]:
        """Yield the components of ``supplier``, as ``role/name``."""
        for role, registry in self.registries.items():
            yield from (f"{role}/{name}" for name in registry.names() if registry.supplier_of(name) == supplier)

    def version_of(self, distribution: str) -> str | None:
        """Return the version of a distribution that has plugins here, loaded or not; None if it has none."""
        every = (*self.suppliers, *(plugin.supplier for plugin in self.not_loaded))
        return {supplier.distribution: supplier.version for supplier in every}.get(distribution)

    def require_all(self) -> None:
        """Refuse plugins that failed to load.

        Raises:
            PluginError: some plugin is quarantined; all of them are named, each with its cause.
        """
        if self.quarantined:
            raise PluginError("; ".join(map(str, self.quarantined)) + f". Repair it, or leave it out with {BLOCK}=NAME")


@cache
def installed() -> Plugins:
    """Return the installed plugins, without those that ``AIMCORE_BLOCK`` names. They are loaded once per process.

    Raises:
        AimcoreError: nothing is installed, names clash, a hook is misspelt, or a supplied class is not a component.
    """
    return load_plugins(entry_points(group=hookspecs.PROJECT), blocked_names())


def load_plugins(points: Iterable[EntryPoint], blocked: Collection[str] = (), *, strict: bool = False) -> Plugins:
    """Load the plugins that ``points`` name into frozen registries.

    Args:
        points: entry points, in any order.
        blocked: entry-point or distribution names to leave out; a name that matches nothing gives a warning.
        strict: whether a plugin that cannot be imported is an error immediately, instead of when it is used.

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
    """Import plugins and call their hooks. Return the components of each by role, and the plugins that failed."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    supplied: dict[Supplier, Supplied] = {}
    quarantined = []
    for plugin in found:
        # Importing runs third-party code, which may raise anything. The error is kept, and raised on use of the plugin.
        try:
            manager.register(plugin.entry_point.load(), name=plugin.supplier.plugin)
            supplied[plugin.supplier] = {role: list(hook()) for role, hook in _hooks(manager, plugin).items()}
        except Exception as cause:  # noqa: BLE001
            quarantined.append(Quarantined(plugin.supplier, cause))
    _refuse_misspelt(manager, found)
    return supplied, tuple(quarantined)


def _hooks(manager: pluggy.PluginManager, plugin: FoundPlugin) -> Hooks:
    """Return the hooks that one plugin implements: called apart, they show which plugin supplies a component."""
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
    """Return every plugin that was found but is not loaded, with the reason."""
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
