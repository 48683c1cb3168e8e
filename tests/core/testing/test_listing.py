"""Components that are not installed: the kit checks them all the same, and errors say why they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from core.testing.mutants.components import Taken
from core.testing.mutants.orderings import Sound
from toy_plugins import ToyDistribution, points_of, toy_experiment, toy_plugins

from aimcore.contracts.errors import RecipeError
from aimcore.recipe import to_recipe
from aimcore.registry.plugins import installed, load_plugins
from aimcore.testing.component_listing import plugins_with
from aimcore_orderings import Raster, Reversed


def test_what_is_not_installed_is_listed_beside_what_is() -> None:
    registry = plugins_with(Reversed(of=Sound())).registry("orderings")
    assert registry.get("sound") is Sound
    assert registry.get("reversed") is Reversed
    assert "sound" not in installed().registry("orderings")


def test_it_wins_where_its_name_is_taken() -> None:
    assert plugins_with(Taken()).registry("orderings").get("raster") is Taken
    assert installed().registry("orderings").get("raster") is Raster


def test_a_broken_plugin_is_named_where_a_component_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise OSError('no such device')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    toys = points_of(
        ToyDistribution("aimcore-toys", "1.5", {"toys": "toy_plugins"}),
        ToyDistribution("aimcore-broken", "0.1", {"broken": "broken_plugin"}),
    )
    experiment = toy_experiment()
    assert to_recipe(experiment, toy_plugins())
    changed = toy_experiment(objective=type(experiment.objective)(ordering=Sound()))  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"orderings/sound\) is not supplied .*aimcore-broken 0\.1 failed to load"):
        to_recipe(changed, load_plugins(toys))
