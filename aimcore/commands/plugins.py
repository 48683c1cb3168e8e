"""``aimcore plugins``: what is installed, from whom, and what was left out and why."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from aimcore.plugins import BLOCK, Plugins, installed
from aimcore.registry import Supplier
from aimcore.terminal import Terminal


def plugins_command() -> int:
    """Print every plugin; the status is 1 where one could not be loaded, else 0."""
    plugins, console = installed(), Terminal()
    console.print(_loaded_table(plugins))
    for line in _left_out(plugins):
        console.print(line, highlight=False, soft_wrap=True)
    return 1 if plugins.quarantined else 0


def components_of(plugins: Plugins, supplier: Supplier) -> Iterator[str]:
    """Yield what ``supplier`` supplies, as ``role/name``."""
    for role, registry in plugins.registries.items():
        yield from (f"{role}/{name}" for name in registry.names() if registry.supplier_of(name) == supplier)


def _loaded_table(plugins: Plugins) -> Table:
    table = Table("plugin", "distribution", "components", box=box.SIMPLE, pad_edge=False)
    for supplier in plugins.suppliers:
        names = ", ".join(components_of(plugins, supplier)) or "none yet"
        table.add_row(supplier.plugin, f"{supplier.distribution} {supplier.version}", names)
    return table


def _left_out(plugins: Plugins) -> Iterator[str]:
    for lack in plugins.missing_extras:
        yield f"not installed: {lack}"
    for supplier in plugins.blocked:
        yield f"blocked by {BLOCK}: {supplier}"
    for quarantined in plugins.quarantined:
        yield f"broken: {quarantined}"
