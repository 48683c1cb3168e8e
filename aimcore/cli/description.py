"""Descriptions of components, derived from their classes: fields with types, defaults and meanings, and origin."""

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
    """A field of a component or of settings."""

    path: str
    """Path within the component, as in a recipe: ``"head.width"``."""
    type: str
    required: bool
    default: Any = None
    """The default as in a recipe; None if the field is required, or if the default is computed for each value."""
    meaning: str = ""
    choices: tuple[str, ...] = ()
    """Components that the field accepts, as ``role/name``."""
    fields: tuple[Field, ...] = ()
    """Fields of its default value, or of the only class that it accepts."""


@attrs.frozen
class Location:
    """The place where a class is defined."""

    file: str
    """Relative to the folder that contains its package."""
    line: int


@attrs.frozen(kw_only=True)
class Description:
    """The description of a component, or of the settings of an experiment."""

    name: str
    """``role/name``, or the name of the settings."""
    paragraphs: tuple[str, ...]
    """The docstring of its class, without markup for code."""
    paper: str
    distribution: str
    """The name of the distribution that supplies it."""
    version: str
    plugin: str | None
    """The name of its entry point; None for settings, which belong to the core."""
    python: str
    """The qualified name of its class."""
    source: Location | None
    fields: tuple[Field, ...]
    abilities: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Its capabilities or skills (``can``) and requirements (``needs``), if its role has them; settings change them."""
    fit: tuple[Field, ...] = ()
    """The settings of ``aimcore tokenizer fit``, for an image tokenizer that it fits."""
    instance: str = ""
    """The instance that has these capabilities: one with defaults, or one of its examples."""


def describe_component(role: str, name: str, plugins: Plugins | None = None) -> Description:
    """Describe the component ``role/name``.

    Raises:
        PluginError, UnknownComponent: the component is unknown.
    """
    plugins = installed() if plugins is None else plugins
    registry = plugins.registry(role)
    cls, supplier = registry.get(name), registry.supplier_of(name)
    return _description(f"{role}/{name}", cls, supplier.distribution, supplier.version, supplier.plugin, plugins)


def describe_settings(name: str, cls: type[Any], plugins: Plugins | None = None) -> Description:
    """Describe a class of the core's settings, such as that of an experiment."""
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
        fit=tuple(_fields(cls.fitting, plugins)) if getattr(cls, "fitting", None) else (),
        **_abilities(cls),
    )


def _abilities(cls: type[Any]) -> dict[str, Any]:
    asked = [name for name in ("capabilities", "skills", "requires") if is_component(cls) and hasattr(cls, name)]
    instance = _instance(cls) if asked else None
    if instance is None:
        return {}
    given = ", ".join(f"{name}={getattr(instance, name)!r}" for name in _required(cls))
    return {
        "abilities": {name: tuple(sorted(getattr(instance, name))) for name in asked},
        "instance": f"with {given}" if given else "by default",
    }


def _instance(cls: type[Any]) -> Any:
    """Return the component with its defaults, or else its first example, or None if it has no example."""
    try:
        return next(iter(cls.examples()), None) if _required(cls) else cls()
    except AimcoreError:
        return None


def _required(cls: type[Any]) -> list[str]:
    return [field.name for field in attrs.fields(cls) if field.init and field.default is attrs.NOTHING]


def _fields(cls: type[Any], plugins: Plugins, values: Any = None, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of ``cls``. Defaults are those of ``values`` if it is given."""
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
    """Yield the installed components that a field, or an item of a list, may hold."""
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
    """Return a declared type as it is written in code, with every choice of a literal.

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
    """Return the docstring of a class, without line breaks and markup for code. Examples are kept as they are."""
    parts = (inspect.getdoc(cls) or "").split("\n\n")
    return [part if part.startswith(">>> ") else _unmarked(part) for part in parts]


def field_docs(cls: type[Any]) -> Mapping[str, str]:
    """Return the attribute docstrings of a class by field; those of the class itself override those of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ not in ("builtins", "abc"):
            docs.update(_own_field_docs(base))
    return docs


def _own_field_docs(cls: type[Any]) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):  # the class has no source file, or hides it
        return
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, doc in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            text = doc.value.value if isinstance(doc.value, ast.Constant) else None
            if isinstance(text, str):
                yield field.target.id, _unmarked(text)


def location_of(cls: type[Any]) -> Location | None:
    """Return the file and line of a class, or None if it has no source file."""
    try:
        file, line = inspect.getfile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return None
    # The path of package.module is as deep as the name of the module.
    depth = cls.__module__.count(".") + 1 + (Path(file).name == "__init__.py")
    return Location("/".join(Path(file).parts[-depth:]), line)


def _unmarked(text: str) -> str:
    """Return text on one line, without reStructuredText markup for code and references."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())
