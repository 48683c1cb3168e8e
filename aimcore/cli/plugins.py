"""``aimcore plugins``: list the installed plugins with their distributions, and why others are not loaded."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

from rich import box
from rich.table import Table

from aimcore.io.terminal import Terminal
from aimcore.registry.discovery import BLOCK, blocked_names
from aimcore.registry.hookspecs import PROJECT
from aimcore.registry.static_listing import ListedPlugins, list_plugins


def plugins_command(*, load: bool = False) -> int:
    """Print every plugin. The status is 1 if the import of a plugin failed, else 0.

    Args:
        load: import every plugin, not only those whose hooks cannot be parsed.

    Raises:
        AimcoreError: nothing is installed, names clash, a hook is misspelt, or a supplied class is not a component.
    """
    plugins, console = list_plugins(entry_points(group=PROJECT), blocked_names(), load=load), Terminal()
    console.print(_table(plugins))
    for line in _left_out(plugins):
        console.print(line, highlight=False, soft_wrap=True)
    return 1 if plugins.quarantined else 0


def _table(plugins: ListedPlugins) -> Table:
    table = Table("plugin", "distribution", "components", box=box.SIMPLE, pad_edge=False)
    for supplier, names in plugins.components.items():
        table.add_row(supplier.plugin, f"{supplier.distribution} {supplier.version}", ", ".join(names) or "none yet")
    return table


def _left_out(plugins: ListedPlugins) -> Iterator[str]:
    for lack in plugins.missing_extras:
        yield f"not installed: {lack}"
    for supplier in plugins.blocked:
        yield f"blocked by {BLOCK}: {supplier}"
    for quarantined in plugins.quarantined:
        yield f"broken: {quarantined}"
