"""Imports among aimcore's modules, all of them: at the top, inside functions, and under ``TYPE_CHECKING``."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PUBLIC_TO_PLUGINS = frozenset({"contracts", "modeling", "io", "evaluation", "encoders", "testing"})
"""Folders of the core that plugins may import from, besides ``aimcore`` itself."""


class Import(NamedTuple):
    """One module imports another one."""

    importer: str
    imported: str
    line: int
    is_top_level: bool
    """Not inside a function, nor under ``if TYPE_CHECKING``."""

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.imported}"


def modules_in(*folders: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below ``folders``."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_among(modules: Mapping[str, Path]) -> list[Import]:
    """Every import of one of ``modules`` by another one, whatever it is nested in."""
    return [one for name, path in modules.items() for one in _imports_of(name, path, modules)]


def _imports_of(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for target in _targets(node, modules):
            if target != name:
                yield Import(name, target, node.lineno, id(node) in top_level)  # type: ignore[attr-defined]


def _targets(node: ast.AST, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            target = f"{node.module}.{alias.name}"
            if target in modules:
                yield target
            elif node.module in modules:
                yield node.module


def layers() -> list[str]:
    """Folders and modules of aimcore, from the highest to the lowest, as the import contract lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in settings["contracts"] if contract["type"] == "layers")
    return list(contract["layers"])
