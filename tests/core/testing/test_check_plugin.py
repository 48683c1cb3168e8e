"""``aimcore check plugin NAME``: the kit in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest
from core.testing.mutants.components import Demanding
from core.testing.mutants.orderings import Fickle, Short, Sound
from torch import Tensor
from toy_plugins import ToyDistribution, points_of

from aimcore import Ordering, PatchGrid, Reading, component, hookimpl, run
from aimcore.registry.plugins import Plugins, load_plugins
from aimcore.testing import checks_for

Supply = Callable[..., Plugins]

NUM_CHECKS = str(len(checks_for(Sound())))


@component("short")
class NamedShort(Short):
    """Gives int32."""


@component("demanding")
class NamedDemanding(Demanding):
    """Requires a number of steps."""

    @classmethod
    def examples(cls) -> Sequence[Demanding]:
        return ()


@pytest.fixture
def supply(monkeypatch: pytest.MonkeyPatch) -> Supply:
    """Install a plugin ``mine`` of the distribution ``aimcore-mine``."""

    def install(orderings: Sequence[type[Ordering]], **others: object) -> Plugins:
        module = ModuleType("aimcore_mine")
        if orderings:
            module.orderings = hookimpl(lambda: list(orderings))  # type: ignore[attr-defined]
        for name, value in others.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "aimcore_mine", module)
        points = points_of(ToyDistribution("aimcore-mine", "0.1", {"mine": "aimcore_mine"}))
        plugins = load_plugins(points)
        monkeypatch.setattr("aimcore.registry.plugins.installed", lambda: plugins)
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: points)
        return plugins

    return install


@pytest.mark.parametrize("name", ["mine", "aimcore-mine", "Aimcore_Mine"])
def test_a_sound_plugin_passes_by_its_name_or_its_distributions(
    supply: Supply, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    supply([Sound])
    assert run.command(["check", "plugin", name]) == 0
    assert rows(capsys) == [["orderings/sound", NUM_CHECKS, "none"]]


def test_a_fault_is_reported_with_exit_status_1(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    supply([Sound, NamedShort])
    assert run.command(["check", "plugin", "mine"]) == 1
    output = capsys.readouterr().out
    assert (
        "orderings/short check_the_permutation_is_int64_on_the_cpu\n  must be [N] int64 on the cpu, got [12]" in output
    )


def test_components_without_examples_are_named_as_unchecked(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    supply([NamedDemanding])
    assert run.command(["check", "plugin", "mine"]) == 0
    assert "has no examples(): check an instance of it in a test" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_plugin_is_answered_with_those_there_are(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    supply([Sound])
    assert run.command(["check", "plugin", "mien"]) == 2
    assert capsys.readouterr().err == (
        "error: no plugin is called 'mien' (did you mean 'mine'?); there are aimcore-mine, mine\n"
    )


def test_a_plugin_that_is_not_loaded_says_so_at_once_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ToyDistribution("aimcore-absent", "0.2", {"absent": "no_such_module"})
    sound = ToyDistribution("aimcore-sound", "0.1", {"sound": "collections"})
    plugins = load_plugins([*points_of(absent), *points_of(sound)])
    monkeypatch.setattr("aimcore.registry.plugins.installed", lambda: plugins)
    for name in ("absent", "Aimcore_Absent"):
        assert run.command(["check", "plugin", name]) == 2
        assert capsys.readouterr().err == (
            "error: not loaded: plugin 'absent' of aimcore-absent 0.2 failed to load (ModuleNotFoundError: No module "
            "named 'no_such_module')\n"
        )
    assert run.command(["check", "plugin", "sonud"]) == 2
    assert "not loaded" not in capsys.readouterr().err


def test_a_plugin_that_supplies_nothing_is_shown_what_it_lacks(
    supply: Supply, capsys: pytest.CaptureFixture[str]
) -> None:
    supply([])
    assert run.command(["check", "plugin", "mine"]) == 2
    assert "its module needs a function with @hookimpl that is named after a role" in capsys.readouterr().err


def test_a_function_that_lacks_its_decorator_is_reported(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    def targets() -> list[object]:
        return []

    supply([Sound], targets=targets)
    assert run.command(["check", "plugin", "mine"]) == 1
    assert "aimcore_mine.targets lacks @hookimpl: it is never called" in capsys.readouterr().out


def test_a_component_that_no_hook_returns_is_reported(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    supply([Sound], NamedShort=NamedShort)
    assert run.command(["check", "plugin", "mine"]) == 1
    assert "aimcore_mine.NamedShort (orderings/short) is returned by no hook" in capsys.readouterr().out


def test_a_component_whose_examples_fail_does_not_end_the_check_of_causality(
    supply: Supply, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @component("without_defaults")
    class WithoutDefaults(Demanding):
        """Has no default, and no examples."""

    plugins = supply([Sound, WithoutDefaults])
    monkeypatch.setattr("aimcore.testing.cases.installed", lambda: plugins)
    assert run.command(["check", "causality"]) == 1
    said = capsys.readouterr().out
    assert said.startswith(
        "orderings/without_defaults: CANNOT BE CHECKED\n  NoExamples: WithoutDefaults has no default for steps"
    )
    assert said.endswith("1 combination: none causal, none leaking, 1 could not be checked\n")


def test_one_fault_of_several_checks_is_reported_once(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    @component("failing")
    class Failing(Sound):
        """Fails on every grid."""

        def permutation(self, grid: PatchGrid) -> Tensor:
            raise RuntimeError("no curve through here")

    supply([Failing])
    assert run.command(["check", "plugin", "mine"]) == 1
    output = capsys.readouterr().out
    assert output.count("raised RuntimeError: no curve through here (test_check_plugin.py, line ") == 1
    assert "orderings/failing check_torchs_generator_is_left_alone" in output


def test_several_components_are_checked_each(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    @component("fickle")
    class NamedFickle(Fickle):
        """Draws another order each time."""

    supply([Sound, NamedFickle])
    assert run.command(["check", "plugin", "mine"]) == 1
    assert rows(capsys)[:2] == [["orderings/fickle", NUM_CHECKS, "1"], ["orderings/sound", NUM_CHECKS, "none"]]


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The rows of the table."""
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" orderings/")]


def test_deprecated_names_are_listed_once(supply: Supply, capsys: pytest.CaptureFixture[str]) -> None:
    @component("old")
    class Old(Sound):
        """Reads an old name of a contract in every call."""

        def permutation(self, grid: PatchGrid) -> Tensor:
            _ = Reading().hidden_BN
            return super().permutation(grid)

    supply([Old])
    assert run.command(["check", "plugin", "mine"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("deprecated: ")]
    assert len(lines) == 1
    message = "Reading.hidden_BN is now Reading.masked_BN, and aimcore 0.3 removes the old name"
    assert lines[0].startswith(f"deprecated: {message} (test_check_plugin.py, line ")
