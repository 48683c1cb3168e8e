"""What an objective needs of a trunk is compared when an experiment is made, with a cure where a setting is one."""

from __future__ import annotations

from typing import Any

import pytest
from core.engine.toys import experiment

from aimcore import Experiment, InvalidValue, Trunk, component
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, NextPatch


@component("stranger")
class Stranger(Trunk):
    """Says what it can as it likes."""

    abilities: tuple[str, ...] = ()
    flips: bool = False

    @property
    def capabilities(self) -> Any:
        return [*self.abilities, "prefix"] if self.flips else self.abilities

    @property
    def patch_size(self) -> int:
        return 4

    def build(self) -> Any: ...


def make(trunk: Trunk, *, attention: Any = "bidirectional", **changes: Any) -> Experiment:
    objective = NextPatch(head=LinearHead(), prefix="uniform")
    return experiment(**{"trunk": trunk, "objective": objective, "probe_attention": attention, **changes})


def message(*abilities: str, **changes: Any) -> str:
    with pytest.raises(InvalidValue) as caught:
        make(Stranger(abilities=abilities), **changes)
    ((path, text),) = caught.value.problems
    assert path == "objective"
    return text


def test_any_collection_of_capabilities_will_do() -> None:
    assert make(Stranger(abilities=("prefix", "order"))).trunk.capabilities == ("prefix", "order")
    assert make(Stranger(abilities=("order",), flips=True)).trunk.capabilities == ["order", "prefix"]


def test_missing_capabilities_are_reported() -> None:
    assert message() == "'next_patch' needs a trunk that can 'order' and 'prefix'; 'stranger' can nothing of that kind"


def test_settings_that_help_are_named_for_either_part() -> None:
    assert message("order", "causal") == (
        "'next_patch' needs a trunk that can 'prefix'; 'stranger' can 'causal', 'order': set trunk.flips=True or "
        "objective.prefix=None, or use another trunk"
    )


def test_settings_that_do_not_help_are_not_named() -> None:
    objective = Classification(num_classes=10, attention="causal")
    assert message("prefix", objective=objective) == (
        "'classification' needs a trunk that can 'causal'; 'stranger' can 'prefix': set "
        "objective.attention='bidirectional', or use another trunk"
    )


@component("demanding")
class DemandingObjective(NextPatch):
    """Requires the given capabilities."""

    wanted: tuple[str, ...] = ()

    @property
    def requires(self) -> Any:
        return frozenset(self.wanted)


def test_capabilities_of_a_plugins_own_are_compared_like_others() -> None:
    objective = DemandingObjective(head=LinearHead(), wanted=("stereo",))
    assert make(Stranger(abilities=("stereo",)), objective=objective).objective == objective
    assert message("order", objective=objective).startswith(
        "'demanding' needs a trunk that can 'stereo'; 'stranger' can 'order'"
    )


def test_a_misspelling_is_pointed_out_on_either_side() -> None:
    assert "(is 'ordr' another spelling of 'order'?)" in message(
        "order", objective=DemandingObjective(head=LinearHead(), wanted=("ordr",))
    )
    assert "(is 'prefix' another spelling of 'prefixes'?)" in message("order", "prefixes")
    assert "spelling" not in message("order", "causal")
