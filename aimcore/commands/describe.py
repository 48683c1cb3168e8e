"""``aimcore describe ROLE[/NAME]``: the components of a role, or one component with its fields."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aimcore.component import Component
from aimcore.plugins import installed
from aimcore.registry import Registry


def describe_command(what: str) -> int:
    """Print a role's components (``orderings``) or one component (``orderings/spiral``).

    Raises:
        PluginError: there is no such role.
        UnknownComponent: the role has no such component.
    """
    role, _, name = what.partition("/")
    registry, console = installed().registry(role), Console()
    if name:
        _print_component(registry, name, console)
    else:
        console.print(_role_table(registry))
    return 0


def _role_table(registry: Registry[Any]) -> Table:
    title = f"{registry.name}: {_first_line(registry.role)}"
    table = Table("name", "what it is", "from", title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name, component in registry.items():
        table.add_row(name, _first_line(component), registry.supplier_of(name).distribution)
    return table


def _print_component(registry: Registry[Any], name: str, console: Console) -> None:
    component: type[Component] = registry.get(name)
    console.print(f"{registry.name}/{name}", style="bold", highlight=False)
    console.print("\n\n".join(_paragraphs(component)), highlight=False, markup=False)
    console.print(_fields_table(component))
    if component.paper:
        console.print(f"paper: {component.paper}", highlight=False)
    where = f"{component.__module__}.{component.__qualname__}"
    console.print(f"from: {registry.supplier_of(name)} ({where})", highlight=False, soft_wrap=True)


def _fields_table(component: type[Component]) -> Table:
    table = Table("field", "type", "default", "meaning", box=box.SIMPLE, pad_edge=False)
    docs = field_docs(component)
    for field in attrs.fields(cast(Any, component)):
        meaning = docs.get(field.name, "")
        table.add_row(field.name, *map(escape, (_type_text(field.type), _default_text(field), meaning)))
    if not table.row_count:
        table.add_row("none", "", "", "")
    return table


def field_docs(component: type[Any]) -> Mapping[str, str]:
    """What the strings below the fields of a class say, by field; bases count, the class itself wins."""
    docs: dict[str, str] = {}
    for base in reversed(component.__mro__):
        if base.__module__ not in ("builtins", "abc"):
            docs.update(_own_field_docs(base))
    return docs


def _own_field_docs(cls: type[Any]) -> Iterator[tuple[str, str]]:
    import ast

    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # made without a source file
        return
    assert isinstance(tree, ast.ClassDef)
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            text = doc.value.value if isinstance(doc.value, ast.Constant) else None
            if isinstance(text, str):
                yield field.target.id, " ".join(text.replace("``", "").split())


def _paragraphs(cls: type[Any]) -> list[str]:
    """The docstring without line breaks and without marks for code."""
    return [" ".join(part.replace("``", "").split()) for part in (inspect.getdoc(cls) or "").split("\n\n")]


def _first_line(cls: type[Any]) -> str:
    return escape(_paragraphs(cls)[0])


def _type_text(kind: object) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", None) or str(kind)
    if getattr(kind, "__args__", None):
        text = str(kind)
    return re.sub(r"\b(?:typing|collections\.abc|aimcore\w*(?:\.\w+)*)\.", "", text)


def _default_text(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    return "made anew" if isinstance(field.default, attrs.Factory) else repr(field.default)  # type: ignore[arg-type]
