"""The layers of the core: no import circle, no import of a higher layer, and no private import by a plugin."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from import_graph import PUBLIC_TO_PLUGINS, ROOT, Import, imports_among, layers, modules_in

CORE = modules_in(ROOT / "aimcore")
PLUGINS = modules_in(*sorted(path.parent for path in (ROOT / "plugins").glob("*/__init__.py")))
IMPORTS = imports_among(CORE)
LATE = {"aimcore", "aimcore.registry.hookspecs", "aimcore.registry.static_listing"}
"""Modules that may import others of aimcore late, besides the command line: they must load without torch."""


def folder_of(module: str) -> str:
    return module.split(".")[1]


def circle_in(imports: list[Import]) -> list[str]:
    """Modules that import each other in a circle; none if there is none."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        graph.setdefault(one.importer, set()).add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_through_others():
    assert circle_in([one for one in IMPORTS if one.importer != "aimcore"]) == []
    assert circle_in(imports_among(PLUGINS)) == []


def test_every_folder_imports_from_lower_layers_only():
    order = layers()
    upward = [
        str(one)
        for one in IMPORTS
        if one.importer != "aimcore" and order.index(folder_of(one.imported)) < order.index(folder_of(one.importer))
    ]
    assert upward == []


def test_every_folder_and_module_of_the_core_is_in_a_layer():
    assert sorted(layers()) == sorted({folder_of(module) for module in CORE if module != "aimcore"})


def test_modules_import_late_for_start_up_only():
    late = [
        str(one)
        for one in IMPORTS
        if not one.is_top_level and one.importer not in LATE and folder_of(one.importer) not in ("run", "cli")
    ]
    assert late == []


def test_no_module_of_the_core_imports_the_package_itself():
    assert [str(one) for one in IMPORTS if one.imported == "aimcore"] == []


def test_plugins_import_public_folders_only():
    allowed = {"aimcore", *(f"aimcore.{folder}" for folder in PUBLIC_TO_PLUGINS)}
    private = [
        str(one)
        for one in imports_among({**CORE, **PLUGINS})
        if one.importer in PLUGINS and one.imported in CORE and ".".join(one.imported.split(".")[:2]) not in allowed
    ]
    assert private == []


@pytest.mark.parametrize(
    ("text", "is_top_level"),
    [
        ("from demo import b", True),
        ("def f():\n    from demo.b import X", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import demo.b", False),
    ],
)
def test_hidden_imports_are_seen(tmp_path: Path, text: str, is_top_level: bool):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text(text)
    (folder / "b.py").write_text("from demo import a")
    found = imports_among(modules_in(folder))
    assert [(one.importer, one.imported, one.is_top_level) for one in found] == [
        ("demo.a", "demo.b", is_top_level),
        ("demo.b", "demo.a", True),
    ]
    assert circle_in(found)
