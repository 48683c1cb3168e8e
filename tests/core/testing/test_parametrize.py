"""The kit as plugin authors meet it: test ids, expected failures, and errors that say what to do."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from core.testing.mutants.orderings import Short, Sound
from processes import run_to_end

from aimcore.contracts.errors import NotAComponent, UnknownCheck
from aimcore.testing import checks_for, outcomes_of, parametrize_with_checks
from aimcore_heads import MLPHead
from aimcore_trunks import ViT

INT64 = "check_the_permutation_is_int64_on_the_cpu"


def cases(mark: pytest.MarkDecorator) -> dict[str, Any]:
    """The parameter sets of a decorator, by id."""
    return {case.id: case for case in mark.args[1]}


def test_each_check_of_each_component_has_an_id() -> None:
    found = cases(parametrize_with_checks([Sound()]))
    assert f"orderings/sound-{INT64}" in found
    assert [case.values[1] for case in found.values()] == list(checks_for(Sound()))


def test_several_examples_of_one_class_are_numbered() -> None:
    ids = list(cases(parametrize_with_checks(MLPHead.examples())))
    assert ids[0].startswith("heads/mlp.1-check_")
    assert ids[-1].startswith("heads/mlp.2-check_")


def test_an_expected_failure_is_strict_and_says_why() -> None:
    found = cases(parametrize_with_checks([Short()], xfail={INT64: "int32 is enough"}))
    marked = {name: case.marks for name, case in found.items() if case.marks}
    (mark,) = marked.pop(f"orderings/mutant-{INT64}")
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "int32 is enough", "strict": True})
    assert not marked


def test_an_unknown_expected_failure_is_answered_with_the_checks() -> None:
    with pytest.raises(UnknownCheck, match=r"'check_the_permutation_is_int32' \(did you mean 'check_the_permutation"):
        parametrize_with_checks([Sound()], xfail={"check_the_permutation_is_int32": ""})


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(NotAComponent, match=r"give an instance, Sound\(\)"):
        parametrize_with_checks([Sound])  # type: ignore[list-item]


def test_nothing_to_check_is_an_error_and_no_green_test() -> None:
    with pytest.raises(NotAComponent, match="there is no component to check: if examples"):
        parametrize_with_checks([])


def test_a_trunk_is_checked_for_what_it_says_it_can() -> None:
    plain, masking = (ViT(width=8, depth=1, num_heads=1, patch_size=4, mask_token=token) for token in (False, True))
    added = {check.__name__ for check in checks_for(masking)} - {check.__name__ for check in checks_for(plain)}
    assert added == {"check_a_masked_patch_cannot_be_seen"}


def test_a_failure_says_what_was_found_and_what_is_wanted() -> None:
    faults = {outcome.check: outcome.fault for outcome in outcomes_of(Short()) if outcome.fault}
    assert faults == {INT64: "must be [N] int64 on the cpu, got [12] int32 on cpu"}


def test_the_kit_runs_without_pytest() -> None:
    code = "import sys, aimcore.testing; sys.exit('pytest' in sys.modules or 'deepspeed' in sys.modules)"
    assert run_to_end([sys.executable, "-c", code]).returncode == 0
