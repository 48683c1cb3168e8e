"""Everything that is installed conforms; the cases are found, not listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from core.testing.with_data import MAKERS

from aimcore import Component
from aimcore.registry.plugins import installed
from aimcore.testing import installed_components, outcomes_of, parametrize_with_checks
from aimcore.testing.checks import Check


@parametrize_with_checks(installed_components())
def test_every_installed_component_conforms(component: Component, check: Check) -> None:
    check(component)


@pytest.mark.parametrize("name", MAKERS)
def test_components_that_need_data_conform_when_they_have_it(name: str, tmp_path: Path) -> None:
    component = MAKERS[name](tmp_path)
    assert f"{type(component).role}/{type(component).name}" == name
    assert [outcome for outcome in outcomes_of(component) if outcome.fault] == []


def test_every_installed_component_is_among_the_cases_or_has_its_data_made() -> None:
    checked = {f"{type(component).role}/{type(component).name}" for component in installed_components()}
    every = {f"{role}/{name}" for role, registry in installed().registries.items() for name in registry.names()}
    # The checks of objectives are checks of losses, and those of tokenizers encode texts: these two have none.
    assert every - checked - {"objectives/no_training", "tokenizers/given_ids"} == set(MAKERS)
