"""Discovery of the installed plugins by their entry points, without importing them."""

import os
import warnings
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aimcore.contracts.errors import NameClash, PluginError, UnknownBlock
from aimcore.registry.registry import Supplier

BLOCK = "AIMCORE_BLOCK"
"""Environment variable with plugins to leave out, by entry-point or distribution name, separated by commas."""


class FoundPlugin(NamedTuple):
    """An installed plugin that is not yet imported."""

    supplier: Supplier
    entry_point: EntryPoint


class Quarantined(NamedTuple):
    """A plugin that failed to import, or whose hooks failed."""

    supplier: Supplier
    cause: Exception

    def __str__(self) -> str:
        return f"{self.supplier} failed to load ({type(self.cause).__name__}: {self.cause})"


class MissingExtra(NamedTuple):
    """A plugin that requires optional packages which are not installed."""

    supplier: Supplier
    extras: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that installs the missing packages."""
        return f"pip install '{self.supplier.distribution}[{','.join(self.extras)}]'"

    def __str__(self) -> str:
        return f"{self.supplier} needs {', '.join(self.packages)}: {self.command}"


class FoundPlugins(NamedTuple):
    """The installed plugins by state: loadable, blocked, or with missing extras."""

    usable: tuple[FoundPlugin, ...]
    missing_extras: tuple[MissingExtra, ...]
    blocked: tuple[Supplier, ...]


def blocked_names() -> list[str]:
    """Return the names in the environment variable :data:`BLOCK`."""
    return [name.strip() for name in os.environ.get(BLOCK, "").split(",") if name.strip()]


def find_plugins(points: Iterable[EntryPoint], blocked: Collection[str] = ()) -> FoundPlugins:
    """Sort the plugins that ``points`` name by state, without importing any of them.

    Raises:
        PluginError: there are no plugins.
        NameClash: two plugins share a name.
    """
    found = _find(points)
    if not found:
        raise PluginError("aimcore's plugins are not installed: run pip install -e .")
    kept = _without(found, blocked)
    _refuse_clashes(kept)
    missing = tuple(lack for plugin in kept if (lack := _missing_extra(plugin)))
    absent = {lack.supplier for lack in missing}
    return FoundPlugins(
        usable=tuple(plugin for plugin in kept if plugin.supplier not in absent),
        missing_extras=missing,
        blocked=tuple(plugin.supplier for plugin in found if plugin not in kept),
    )


def _find(points: Iterable[EntryPoint]) -> tuple[FoundPlugin, ...]:
    """Return the plugins, sorted, each once, with their distributions."""
    found = {
        Supplier(point.dist.name if point.dist else "?", point.dist.version if point.dist else "?", point.name): point
        for point in points
    }
    return tuple(FoundPlugin(supplier, point) for supplier, point in sorted(found.items(), key=lambda item: item[0]))


def _without(found: Sequence[FoundPlugin], blocked: Collection[str]) -> tuple[FoundPlugin, ...]:
    """Return the plugins that are not blocked."""
    wanted = {canonicalize_name(name) for name in blocked}
    names = {plugin.supplier: _block_names(plugin.supplier) for plugin in found}
    for name in sorted(wanted.difference(*names.values())):
        warnings.warn(f"{BLOCK} names {name!r}, but no such plugin is installed", UnknownBlock, stacklevel=2)
    return tuple(plugin for plugin in found if not names[plugin.supplier] & wanted)


def _block_names(supplier: Supplier) -> set[str]:
    return {canonicalize_name(supplier.plugin), canonicalize_name(supplier.distribution)}


def _refuse_clashes(found: Sequence[FoundPlugin]) -> None:
    """Refuse two plugins of one name before loading: pluggy would silently drop one of them."""
    first: dict[str, Supplier] = {}
    for plugin in found:
        name = plugin.supplier.plugin
        other = first.setdefault(name, plugin.supplier)
        if other is not plugin.supplier:
            raise NameClash(
                f"two distributions have a plugin called {name!r}: {other.distribution} {other.version} and "
                f"{plugin.supplier.distribution} {plugin.supplier.version}. Uninstall one, or leave one out with "
                f"{BLOCK}=DISTRIBUTION"
            )


def _missing_extra(plugin: FoundPlugin) -> MissingExtra | None:
    """Return the packages that the extras of the entry point require and that are missing here."""
    point = plugin.entry_point
    requires = [Requirement(text) for text in (point.dist.requires if point.dist else None) or ()]
    wanted = [need for need in requires if any(_is_of_extra(need, extra) for extra in point.extras)]
    lacking = tuple(need.name for need in wanted if not _is_met(need))
    return MissingExtra(plugin.supplier, tuple(point.extras), lacking) if lacking else None


def _is_of_extra(need: Requirement, extra: str) -> bool:
    marker = need.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _is_met(need: Requirement) -> bool:
    try:
        return need.specifier.contains(version(need.name), prereleases=True)
    except PackageNotFoundError:
        return False
