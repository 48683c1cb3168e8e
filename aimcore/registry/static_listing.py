"""Components of plugins, read from their files: no plugin is imported, so that listing them takes no time.

Only plain code is parsed: a hook that returns a list of classes, each decorated with ``@component("name")``, in this
module or in one that it imports from. A plugin that is written in another way is imported instead. A plugin whose
import fails in a way that its files do not show is listed as if it were intact.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import attrs

from aimcore.registry.discovery import MissingExtra, Quarantined, find_plugins
from aimcore.registry.hookspecs import HOOKS
from aimcore.registry.registry import Supplier

_MOST_HOPS = 8
"""Largest number of modules through which a class may be imported."""


class _NotParsable(Exception):
    """The files cannot be parsed."""


@attrs.frozen(kw_only=True)
class ListedPlugins:
    """The components of the installed plugins, and the plugins that are not loaded."""

    components: Mapping[Supplier, Sequence[str]]
    """As ``role/name``, sorted."""
    quarantined: Sequence[Quarantined]
    """Plugins whose import failed."""
    blocked: Sequence[Supplier]
    missing_extras: Sequence[MissingExtra]


def list_plugins(points: Iterable[EntryPoint], blocked: Collection[str] = (), *, load: bool = False) -> ListedPlugins:
    """List plugins from their files, and import only those whose hooks cannot be parsed.

    Args:
        points: entry points, in any order.
        blocked: entry-point or distribution names to leave out.
        load: import all plugins, to find those whose import fails.

    Raises:
        AimcoreError: as :func:`aimcore.registry.plugins.load_plugins`.
    """
    found = find_plugins(points, blocked)
    read = {} if load else {plugin.supplier: components_in_files(plugin.entry_point) for plugin in found.usable}
    listed = {supplier: sorted(names) for supplier, names in read.items() if names is not None}
    every = [name for names in listed.values() for name in names]
    if len(set(every)) < len(every):  # the error of load_plugins names the suppliers
        listed = {}
    rest = [plugin.entry_point for plugin in found.usable if plugin.supplier not in listed]
    loaded = None
    if rest:
        from aimcore.registry.plugins import load_plugins  # here, because it loads torch

        loaded = load_plugins(rest)
        listed |= {supplier: sorted(loaded.components_of(supplier)) for supplier in loaded.suppliers}
    return ListedPlugins(
        components=dict(sorted(listed.items())),
        quarantined=() if loaded is None else loaded.quarantined,
        blocked=found.blocked,
        missing_extras=found.missing_extras,
    )


def components_in_files(point: EntryPoint) -> tuple[str, ...] | None:
    """Return the components of an entry point's plugin, as ``role/name``; None if only an import can find them."""
    if point.attr:
        return None
    try:
        module = _Module(point.module)
        return tuple(f"{hook.name}/{name}" for hook in module.hooks() for name in module.names_in(hook))
    except _NotParsable:
        return None


class _Module:
    """The source of a module."""

    def __init__(self, name: str) -> None:
        path = _file_of(name)
        self._package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        try:
            self._body = ast.parse(path.read_bytes()).body
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            raise _NotParsable from error
        for root in self._imported_roots():
            _spec_of(root)

    def hooks(self) -> list[ast.FunctionDef]:
        """Return its hooks; at least one."""
        found = [node for node in self._body if isinstance(node, ast.FunctionDef) and _is_hook(node)]
        # Any other use of hookimpl may be a hook too.
        uses = [node for top in self._body for node in ast.walk(top) if _is_called(node, "hookimpl")]
        if not found or len(uses) != len(found) or not {hook.name for hook in found} <= set(HOOKS):
            raise _NotParsable
        return found

    def names_in(self, hook: ast.FunctionDef) -> list[str]:
        """Return the names of the components that a hook returns."""
        last = hook.body[-1]
        rest = [node for node in hook.body[:-1] if not (isinstance(node, ast.Expr) and _is_text(node.value))]
        returned = last.value if isinstance(last, ast.Return) and not rest else None
        if not isinstance(returned, ast.List | ast.Tuple):
            raise _NotParsable
        if not all(isinstance(item, ast.Name) for item in returned.elts):
            raise _NotParsable
        return [self.component_name(item.id) for item in returned.elts if isinstance(item, ast.Name)]

    def component_name(self, class_name: str, hops: int = 0) -> str:
        """Return the registered name of the component class called ``class_name`` here."""
        definitions = [node for node in self._body if class_name in _bound(node)]
        if len(definitions) != 1 or hops > _MOST_HOPS:
            raise _NotParsable
        (node,) = definitions
        if isinstance(node, ast.ClassDef):
            return _registered_name(node)
        if isinstance(node, ast.ImportFrom):
            original = next(alias.name for alias in node.names if (alias.asname or alias.name) == class_name)
            return _Module(self._module_of(node)).component_name(original, hops + 1)
        raise _NotParsable

    def _module_of(self, node: ast.ImportFrom) -> str:
        """Return the full name of the module that is imported from."""
        if not node.level:
            return node.module or ""
        parts = self._package.split(".")
        above = parts[: len(parts) - (node.level - 1)]
        return ".".join((*above, *([node.module] if node.module else [])))

    def _imported_roots(self) -> Iterator[str]:
        """Yield the top-level packages that its import requires."""
        for node in self._body:
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield (node.module or "").partition(".")[0]


def _file_of(name: str) -> Path:
    """Return the source file of a module, without importing its packages."""
    root, *below = name.split(".")
    spec = _spec_of(root)
    for part in below:
        inner = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
        if inner is None:
            raise _NotParsable
        spec = inner
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise _NotParsable
    return Path(spec.origin)


def _spec_of(root: str) -> ModuleSpec:
    try:
        spec = find_spec(root)
    except ValueError as error:  # a module without a specification, or no name at all
        raise _NotParsable from error
    if spec is None:
        raise _NotParsable
    return spec


def _bound(node: ast.stmt) -> Sequence[str]:
    """Return the names that a statement of a module binds, including those within ``if`` and the like."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return [name for below in ast.walk(node) for name in _assigned(below)]


def _assigned(node: ast.AST) -> Sequence[str]:
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    return _bound(node) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Import | ast.ImportFrom) else []


def _registered_name(node: ast.ClassDef) -> str:
    calls = [one for one in node.decorator_list if isinstance(one, ast.Call) and _is_called(one.func, "component")]
    if len(calls) != 1 or len(calls[0].args) != 1:
        raise _NotParsable
    (argument,) = calls[0].args
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        raise _NotParsable
    return argument.value


def _is_hook(function: ast.FunctionDef) -> bool:
    return any(_is_called(decorator, "hookimpl") for decorator in function.decorator_list)


def _is_called(node: ast.AST, name: str) -> bool:
    """Return whether an expression is ``name`` or ``module.name``."""
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
