"""Every check catches something that no other check catches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from core.testing.mutants import captions, masking, trunks
from core.testing.mutants.evaluations import Own, Unfitting
from core.testing.mutants.table import MUTANTS, PAGE, SOUND, Mutant, page

from aimcore import component
from aimcore.testing import checks_for, outcomes_of, parametrize_with_checks
from aimcore.testing.checks import Check
from aimcore.testing.checks.evaluations import check_scores_are_shares_of_something
from aimcore.testing.checks.skills import check_it_has_its_skills
from aimcore.testing.checks.trunks import check_its_capabilities_are_known
from aimcore.testing.conformance import all_checks


@parametrize_with_checks(SOUND)
def test_sound_components_pass_every_check(component: object, check: Check) -> None:
    check(component)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.label)
def test_each_mutant_is_caught_by_its_check_alone(mutant: Mutant) -> None:
    faults = {outcome.check: outcome.fault for outcome in outcomes_of(mutant.component) if outcome.fault}
    assert list(faults) == [mutant.check.__name__]
    assert not faults[mutant.check.__name__].startswith("raised ")


def test_an_evaluation_that_fits_nothing_is_asked_to_bring_an_objective() -> None:
    faults = {outcome.fault for outcome in outcomes_of(Unfitting()) if outcome.fault}
    assert faults == {
        "no objective of the kit can be evaluated (it masks nothing): return some from the class method "
        "objective_examples()"
    }


@pytest.mark.parametrize("returned", [masking.Sound(), (masking.Sound,)])
def test_objective_examples_that_are_no_tuple_of_instances_are_named(returned: Any) -> None:
    @component("giving")
    class Giving(Own):
        """Returns something else than a tuple of instances."""

        @classmethod
        def objective_examples(cls) -> Any:
            return returned

    with pytest.raises(AssertionError, match=r"must return a tuple of instances of objectives, such as .*, got"):
        check_scores_are_shares_of_something(Giving())


@pytest.mark.parametrize("role", all_checks())
def test_every_check_has_a_mutant(role: str) -> None:
    caught = {mutant.check for mutant in MUTANTS if mutant.role == role}
    assert [check.__name__ for check in all_checks()[role] if check not in caught] == []


def test_checks_have_names_of_their_own_and_say_what_they_ask() -> None:
    for sound in SOUND:
        names = Counter(check.__name__ for check in checks_for(sound))
        assert [name for name, number in names.items() if number > 1] == []
    assert [check for checks in all_checks().values() for check in checks if not check.__doc__] == []


def test_the_documented_table_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run PYTHONPATH=tests python -m core.testing.mutants.table"


def test_capabilities_and_skills_of_a_plugins_own_are_no_fault_unless_they_resemble_known_ones() -> None:
    check_its_capabilities_are_known(trunks.Sound(abilities=("stereo", "depth_maps")))
    with pytest.raises(
        AssertionError, match=r"capabilities names 'orders', which resembles \['order'\].*a more distinct one"
    ):
        check_its_capabilities_are_known(trunks.Sound(abilities=("orders",)))

    @component("own")
    class Own(captions.Sound):
        """Can something that only its own evaluation knows."""

        given: tuple[str, ...] = ("segment",)

        @property
        def skills(self) -> frozenset[str]:
            return frozenset(self.given)

    check_it_has_its_skills(Own())
    with pytest.raises(AssertionError, match=r"skills names 'captions', which resembles \['caption'\]"):
        check_it_has_its_skills(Own(given=("captions",)))
