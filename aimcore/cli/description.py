"""What a component is, from its class: fields with types, defaults and meanings, where it comes from."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.field_types import field_types, is_component, is_literal, is_union, members
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import Plugins, installed


@attrs.frozen(kw_only=True)
class Field:
    """One field of a component or of settings."""

    path: str
    """From the component on, as in a recipe: ``"head.width"``."""
    type: str
    required: bool
    default: Any = None
    """As a recipe holds it; None where it is required, or made anew for each value."""
    meaning: str = ""
    choices: tuple[str, ...] = ()
    """Names of the components that it may be, as ``role/name``."""
    fields: tuple[Field, ...] = ()
    """Fields of what it is by default, or always."""


@attrs.frozen
class Location:
    """Where a class is written."""

    file: str
    """Relative to where its package is."""
    line: int


@attrs.frozen(kw_only=True)
class Description:
    """A component, or the settings of an experiment."""

    name: str
    """``role/name``; for settings, what they are called."""
    paragraphs: tuple[str, ...]
    """The docstring of its class, without marks for code."""
    paper: str
    distribution: str
    """What pip calls the package that supplies it."""
    version: str
    plugin: str | None
    """The name of its entry point; None for settings, which are the core's own."""
    python: str
    """Its class, as Python names it."""
    source: Location | None
    fields: tuple[Field, ...]
    abilities: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """What it ``can``, and what it ``needs`` others to, where its role has that; settings may change it."""
    instance: str = ""
    """Of what value the abilities are: with its defaults, or as an example of its own."""


def describe_component(role: str, name: str, plugins: Plugins | None = None) -> Description:
    """Describe the component ``role/name``.

    Raises:
        PluginError, UnknownComponent: there is none.
    """
    plugins = installed() if plugins is None else plugins
    registry = plugins.registry(role)
    cls, supplier = registry.get(name), registry.supplier_of(name)
    return _description(f"{role}/{name}", cls, supplier.distribution, supplier.version, supplier.plugin, plugins)


def describe_settings(name: str, cls: type[Any], plugins: Plugins | None = None) -> Description:
    """Describe a class of the core's settings, such as an experiment's."""
    return _description(name, cls, "aimcore", version("aimcore"), None, installed() if plugins is None else plugins)


def _description(
    name: str, cls: type[Any], distribution: str, version: str, plugin: str | None, plugins: Plugins
) -> Description:
    return Description(
        name=name,
        paragraphs=tuple(paragraphs_of(cls)),
        paper=getattr(cls, "paper", ""),
        distribution=distribution,
        version=version,
        plugin=plugin,
        python=f"{cls.__module__}.{cls.__qualname__}",
        source=location_of(cls),
        fields=tuple(_fields(cls, plugins)),
        **_abilities(cls),
    )


def _abilities(cls: type[Any]) -> dict[str, Any]:
    asked = [name for name in ("can", "needs") if is_component(cls) and hasattr(cls, name)]
    instance = _instance(cls) if asked else None
    if instance is None:
        return {}
    given = ", ".join(f"{name}={getattr(instance, name)!r}" for name in _required(cls))
    return {
        "abilities": {name: tuple(sorted(getattr(instance, name))) for name in asked},
        "instance": f"with {given}" if given else "by default",
    }


def _instance(cls: type[Any]) -> Any:
    """The component with its defaults, or else its first example; None where it has none."""
    try:
        return next(iter(cls.examples()), None) if _required(cls) else cls()
    except AimcoreError:
        return None


def _required(cls: type[Any]) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.init and field.default is attrs.NOTHING]


def _fields(cls: type[Any], plugins: Plugins, values: Any = None, prefix: str = "") -> Iterator[Field]:
    """The fields of ``cls``; defaults are those of ``values``, where that is given."""
    docs, kinds = field_docs(cls), field_types(cls)
    for field in attrs.fields(cls):
        if not field.init:
            continue
        default = getattr(values, field.name) if values is not None else _default(field)
        path = prefix + field.name
        inner = partial(_fields, plugins=plugins, prefix=f"{path}.")
        yield Field(
            path=path,
            type=type_text(kinds[field.name]),
            required=default is attrs.NOTHING,
            default=None if default is attrs.NOTHING else plain(default),
            meaning=docs.get(field.name, ""),
            choices=tuple(_choices(kinds[field.name], plugins)),
            fields=tuple(_inner_fields(kinds[field.name], default, inner)),
        )


def _inner_fields(kind: Any, default: Any, fields: Any) -> Iterator[Field]:
    if attrs.has(type(default)):
        yield from fields(type(default), values=default)
    else:
        settings = [member for member in members(kind) if attrs.has(member) and not is_component(member)]
        if len(settings) == 1:
            yield from fields(settings[0])


def _choices(kind: Any, plugins: Plugins) -> Iterator[str]:
    """The installed components that may stand in a field, or in the list that it is."""
    parts = [part for member in members(kind) for part in (member, *get_args(member))]
    for role in filter(is_component, parts):
        registry = plugins.registry(role.role)
        yield from (f"{role.role}/{name}" for name, known in registry.items() if issubclass(known, role))


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return None if default.takes_self else default.factory()
    return default


def type_text(kind: Any) -> str:
    """A declared type as it would be written, every choice spelt out.

    >>> type_text(tuple[int, ...])
    'tuple[int, ...]'
    """
    if is_union(kind):
        return " | ".join(map(type_text, get_args(kind)))
    if is_literal(kind):
        return " | ".join(map(repr, get_args(kind)))
    if kind in (None, types.NoneType):
        return "None"
    if kind is Ellipsis:
        return "..."
    name = getattr(get_origin(kind) or kind, "__name__", str(kind))
    arguments = ", ".join(map(type_text, get_args(kind)))
    return f"{name}[{arguments}]" if arguments else name


def paragraphs_of(cls: type[Any]) -> list[str]:
    """The docstring of a class without line breaks and without marks for code. Examples stay as they are."""
    parts = (inspect.getdoc(cls) or "").split("\n\n")
    return [part if part.startswith(">>> ") else _unmarked(part) for part in parts]


def field_docs(cls: type[Any]) -> Mapping[str, str]:
    """What the strings below the fields of a class say, by field; bases count, the class itself wins."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ not in ("builtins", "abc"):
            docs.update(_own_field_docs(base))
    return docs


def _own_field_docs(cls: type[Any]) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):  # made without a source file, or in a way that hides it
        return
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, doc in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            text = doc.value.value if isinstance(doc.value, ast.Constant) else None
            if isinstance(text, str):
                yield field.target.id, _unmarked(text)


def location_of(cls: type[Any]) -> Location | None:
    """The file and line of a class; None where it was made without a file."""
    try:
        file, line = inspect.getfile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None
    # The file of package.module lies as deep as the module's name.
    depth = cls.__module__.count(".") + 1 + (Path(file).name == "__init__.py")
    return Location("/".join(Path(file).parts[-depth:]), line)


def _unmarked(text: str) -> str:
    """Text on one line, without the marks of reStructuredText for code and references."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())
