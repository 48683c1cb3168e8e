"""State that moves: what is taken for it, and what is said where two processes cannot be started."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import pytest
import torch
from core.testing.mutants import masking, teachers

from aimcore import ObjectiveModule, TrunkModule, component
from aimcore.testing import runner as outcomes
from aimcore.testing.checks import states as checks
from aimcore.testing.module_state import differences, has_state, unsaved_state_of


@pytest.mark.parametrize(
    ("objective", "moves"), [(masking.Sound(), False), (masking.Taught(), False), (teachers.Sound(), True)]
)
def test_state_is_what_moves_besides_weights(objective: Any, moves: bool) -> None:
    assert has_state(objective) is moves


def test_state_outside_of_checkpoints_is_named() -> None:
    assert unsaved_state_of(teachers.Forgetful()) == ["updates"]
    assert unsaved_state_of(teachers.Sound()) == []


class QueueingModule(masking.MaskingModule):
    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__(trunk)
        self.queue: list[Any] = []
        self.weights = [*trunk.parameters()]

    def forward(self, batch: Any) -> Any:
        self.queue.append({"mean": batch.images.patches_BNF.mean()})
        return super().forward(batch)


@component("queueing")
class Queueing(masking.Sound):
    """Keeps tensors of earlier batches in a list, and a list of weights, which are in checkpoints."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return QueueingModule(trunk)


def test_state_in_lists_is_named_and_lists_of_weights_are_not() -> None:
    assert unsaved_state_of(Queueing()) == ["queue"]


class CachingModule(masking.MaskingModule):
    cache = 0

    def forward(self, batch: Any) -> Any:
        self.cache = batch.images.patches_BNF.shape[1]
        return super().forward(batch)


@component("caching")
class Caching(masking.Sound):
    """Fills a cache by its first forward."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return CachingModule(trunk)


def test_a_cache_is_no_state() -> None:
    assert unsaved_state_of(Caching()) == []


def test_an_objective_that_no_other_process_can_import_skips_the_check_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @component("local")
    class Inside(teachers.Sound):
        """Defined in a function."""

    with pytest.raises(SkipTest, match=r"Inside cannot be sent to a second process .*: define it in a"):
        checks.check_its_state_is_the_same_on_every_process(Inside())
    monkeypatch.setattr(outcomes, "checks_for", lambda _: (checks.check_its_state_is_the_same_on_every_process,))
    (outcome,) = outcomes.outcomes_of(Inside())
    assert outcome.fault == ""
    assert outcome.skipped.startswith("Inside cannot be sent to a second process")


def test_moving_twice_as_far_or_not_at_all_is_a_difference_and_rounding_is_none() -> None:
    start = {"average": torch.zeros(4), "count": torch.tensor(0)}
    moved = {"average": torch.ones(4), "count": torch.tensor(2)}
    assert differences(moved, moved, start) == []
    assert differences({**moved, "average": torch.ones(4) * 1.1}, moved, start) == []
    assert differences({**moved, "average": torch.ones(4) * 2}, moved, start) == ["average"]
    assert differences({**moved, "average": torch.zeros(4)}, moved, start) == ["average"]
    assert differences({**moved, "count": torch.tensor(4)}, moved, start) == ["count"]
