"""``aimcore describe [ROLE[/NAME]]``: list roles or the components of a role, or show the fields of one component."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import attrs
from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aimcore.cli.description import Description, Field, describe_component, describe_settings, paragraphs_of
from aimcore.contracts.errors import PluginError
from aimcore.contracts.messages import did_you_mean, printable_lines
from aimcore.experiment import Experiment
from aimcore.io.terminal import Terminal, plain_text
from aimcore.recipe.difference import in_words
from aimcore.registry.plugins import installed
from aimcore.registry.registry import Registry

EXPERIMENT = "experiment"
"""The word that describes an experiment: every path that ``--set`` accepts."""


def describe_command(what: str | None, *, as_json: bool = False) -> int:
    """Print the roles, the components of a role (``orderings``), or one component (``orderings/spiral``).

    Args:
        what: a role, a component, or ``experiment``; None lists the roles.
        as_json: print JSON instead of text.

    Raises:
        PluginError: the role is unknown.
        UnknownComponent: the role has no such component.
    """
    console = Terminal()
    if what is None:
        _show(console, [_role(registry) for registry in installed().registries.values()], as_json, _print_roles)
        return 0
    role, _, name = what.partition("/")
    if what == EXPERIMENT:
        _show(console, describe_settings(EXPERIMENT, Experiment), as_json, _print_description)
        return 0
    _require_role(role, name or role)
    if name:
        _show(console, describe_component(role, name), as_json, _print_description)
    else:
        _show(console, _role(installed().registry(role)), as_json, _print_role)
    return 0


def _require_role(role: str, component: str) -> None:
    """Refuse an unknown role. If the word is the name of a component, the error names its role."""
    registries = installed().registries
    is_misspelt = role == component and did_you_mean(role, tuple(registries))
    if role in registries or is_misspelt:
        return
    names = {name for registry in registries.values() for name in registry.names()}
    near = [component] if component in names else get_close_matches(component, names, n=1)
    meant = [f"{registry.name}/{name}" for name in near for registry in registries.values() if name in registry]
    if meant:
        known = ", ".join(sorted(registries))
        raise PluginError(f"no role is called {role!r} (did you mean {' or '.join(meant)}?); there are {known}")


def _show(console: Terminal, value: Any, as_json: bool, print_text: Any) -> None:
    if as_json:
        console.print_data(attrs.asdict(value) if attrs.has(type(value)) else value)
    else:
        print_text(value, console)


def _role(registry: Registry[Any]) -> dict[str, Any]:
    components = [
        {"name": name, "meaning": paragraphs_of(component)[0], "distribution": registry.supplier_of(name).distribution}
        for name, component in registry.items()
    ]
    return {"role": registry.name, "meaning": paragraphs_of(registry.role)[0], "components": components}


def _print_roles(roles: list[dict[str, Any]], console: Terminal) -> None:
    table = Table("role", "description", "components", box=box.SIMPLE, pad_edge=False)
    for role in roles:
        names = ", ".join(component["name"] for component in role["components"]) or "none installed"
        table.add_row(role["role"], role["meaning"], names)
    console.print(table)
    _print_text(console, f"aimcore describe ROLE, ROLE/NAME, or {EXPERIMENT} shows more")


def _print_role(role: dict[str, Any], console: Terminal) -> None:
    console.print(plain_text(role["role"], "bold"))
    _print_text(console, role["meaning"])
    table = Table("name", "description", "from", box=box.SIMPLE, pad_edge=False)
    for component in role["components"]:
        table.add_row(component["name"], component["meaning"], component["distribution"])
    console.print(table)


def _print_description(described: Description, console: Terminal) -> None:
    console.print(plain_text(described.name, "bold"))
    _print_text(console, "\n\n".join(described.paragraphs))
    console.print()
    console.print(Text("fields" if described.fields else "no fields", "bold"))
    for field in described.fields:
        _print_field(field, console, depth=1)
    if described.fit:
        console.print(Text("\nsettings of aimcore tokenizer fit", "bold"))
        for field in described.fit:
            _print_field(field, console, depth=1)
    console.print()
    origins = Table.grid(padding=(0, 2))
    for heading, text in _origins(described):
        origins.add_row(Text(heading, "dim"), Text(printable_lines(text), overflow="fold"))
    console.print(origins)


def _origins(described: Description) -> Iterator[tuple[str, str]]:
    for heading, abilities in described.abilities.items():
        if abilities:
            yield heading, f"{', '.join(abilities)} ({described.instance})"
    if described.paper:
        yield "paper", described.paper
    distribution = f"{described.distribution} {described.version}"
    yield "from", distribution if described.plugin is None else f"plugin {described.plugin!r} of {distribution}"
    yield "class", described.python
    if described.source is not None:
        yield "source", f"{described.source.file}, line {described.source.line}"


def _print_field(field: Field, console: Terminal, depth: int) -> None:
    """Print ``path: type = default`` and, below it, the meaning, the choices, and the fields of the default."""
    given = " (required)" if field.required else f" = {_default_text(field)}"
    line = Text.assemble((field.path, "bold cyan"), (f": {field.type}", "dim"), given)
    console.print(Padding(line, (0, 0, 0, 2 * depth)))
    below = (0, 0, 0, 2 * depth + 4)
    if field.meaning:
        console.print(Padding(plain_text(field.meaning), below))
    if field.choices:
        role = field.choices[0].partition("/")[0]
        names = ", ".join(choice.partition("/")[2] for choice in field.choices)
        console.print(Padding(plain_text(f"{role}: {names}", "dim"), below))
    for inner in field.fields:
        _print_field(inner, console, depth + 1)


def _default_text(field: Field) -> str:
    """Return one word for components and settings, because their fields follow below; otherwise the Python value."""
    if isinstance(field.default, dict) and (field.choices or field.fields):
        return str(field.default.get("name", "these"))
    return in_words(field.default) if field.choices and field.default else repr(field.default)


def _print_text(console: Terminal, text: str) -> None:
    console.print(text, highlight=False)
