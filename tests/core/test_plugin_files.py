"""Plugins that are listed from their files."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from toy_plugins import ToyDistribution, points_of

from aimcore import run
from aimcore.contracts.errors import NameClash, PluginError
from aimcore.registry.plugins import installed
from aimcore.registry.static_listing import components_in_files, list_plugins

PLAIN = '''
from aimcore import Ordering, component, hookimpl

@component("peano", paper="a paper")
class Peano(Ordering):
    def permutation(self, grid): ...

@hookimpl
def orderings():
    """The one of this module."""
    return [Peano]
'''
Make = Callable[..., EntryPoint]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a plugin of a name, from the source of its module, and of other files beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(source: str, name: str = "plain", **files: str) -> EntryPoint:
        folder = tmp_path / f"{name}_plugin"
        folder.mkdir()
        for file, text in {"__init__": source, **files}.items():
            (folder / f"{file}.py").write_text(text)
        return points_of(ToyDistribution(f"aimcore-{name}", "0.3", {name: f"{name}_plugin"}))[0]

    return make


def test_files_of_installed_plugins_say_what_their_import_gives() -> None:
    plugins = installed()
    for point in entry_points(group="aimcore"):
        (supplier,) = (one for one in plugins.suppliers if one.plugin == point.name)
        assert sorted(components_in_files(point) or ()) == sorted(plugins.components_of(supplier)), point.name


def test_a_plain_module_is_read(plugin: Make) -> None:
    assert components_in_files(plugin(PLAIN)) == ("orderings/peano",)


def test_a_class_is_followed_to_where_it_is_written(plugin: Make) -> None:
    init = (
        "from aimcore import hookimpl\nfrom .curves import Curve as Own\n\n@hookimpl\ndef orderings(): return (Own,)\n"
    )
    curves = "from plain_plugin.peano import Peano as Curve\n"
    assert components_in_files(plugin(init, curves=curves, peano=PLAIN)) == ("orderings/peano",)


@pytest.mark.parametrize(
    "changes",
    [
        {"return [Peano]": "return sorted([Peano])"},
        {"return [Peano]": "return [one for one in (Peano,)]"},
        {"return [Peano]": "found = [Peano]\n    return found"},
        {"@hookimpl\n": "", "return [Peano]": "return [Peano]\n\norderings = hookimpl(orderings)"},
        {"@hookimpl\n": ""},
        {"@hookimpl": "@hookimpl(specname='targets')"},
        {"def orderings": "def ordering"},
        {'"peano", paper': '"pea" + "no", paper'},
        {"class Peano(Ordering)": "class Peano(Ordering)", '@component("peano", paper="a paper")\n': ""},
        {"@hookimpl": "if True:\n    Peano = None\n\n@hookimpl"},
        {"@hookimpl": "import a_package_that_is_not_installed\n\n@hookimpl"},
        {"@hookimpl": "class (\n\n@hookimpl"},
        {"[Peano]": "[Hilbert]"},
        {
            "from aimcore import Ordering": "from elsewhere.there import *\nfrom aimcore import Ordering",
            "[Peano]": "[Hilbert]",
        },
    ],
)
def test_what_is_not_plain_is_left_to_its_import(plugin: Make, changes: dict[str, str]) -> None:
    source = PLAIN
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    assert components_in_files(plugin(source)) is None


def test_an_attribute_and_a_module_without_a_file_are_left_to_their_import() -> None:
    assert components_in_files(EntryPoint("one", "toy_plugins:toys", "aimcore")) is None
    assert components_in_files(EntryPoint("one", "no_such_module.at_all", "aimcore")) is None
    assert components_in_files(EntryPoint("one", "math", "aimcore")) is None


def test_what_cannot_be_read_is_imported_and_listed_with_the_rest(plugin: Make) -> None:
    points = [plugin(PLAIN), plugin(PLAIN.replace("[Peano]", "list((Peano,))").replace("peano", "hilbert"), "computed")]
    listed = list_plugins(points)
    assert {supplier.plugin: names for supplier, names in listed.components.items()} == {
        "computed": ["orderings/hilbert"],
        "plain": ["orderings/peano"],
    }


def test_a_plugin_that_cannot_be_imported_is_broken_where_its_files_show_it_and_with_load_always(plugin: Make) -> None:
    shown = plugin(f"import a_package_that_is_not_installed\n{PLAIN}", "shown")
    hidden = plugin(f"{PLAIN.replace('peano', 'hilbert')}\nraise OSError('no such device')\n", "hidden")
    assert [one.supplier.plugin for one in list_plugins([shown, hidden]).quarantined] == ["shown"]
    assert [one.supplier.plugin for one in list_plugins([shown, hidden], load=True).quarantined] == ["hidden", "shown"]


def test_clashes_and_misspelt_hooks_are_errors_as_when_they_are_loaded(plugin: Make) -> None:
    one, other = plugin(PLAIN, "one"), plugin(PLAIN, "other")
    with pytest.raises(NameClash, match=r"orderings/peano: .*aimcore-one 0\.3, and .*aimcore-other 0\.3"):
        list_plugins([one, other])
    with pytest.raises(PluginError, match="unknown hook 'ordering'"):
        list_plugins([plugin(PLAIN.replace("def orderings", "def ordering"), "misspelt")])


def test_nothing_is_imported_that_can_be_read(plugin: Make) -> None:
    point = plugin(f"{PLAIN}\nraise AssertionError('imported')\n")
    assert list(list_plugins([point]).components.values()) == [["orderings/peano"]]


def test_the_command_can_load_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["plugins"]) == 0
    read = capsys.readouterr().out
    assert run.command(["plugins", "--load"]) == 0
    assert capsys.readouterr().out == read
