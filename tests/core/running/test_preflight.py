"""All checks are in one list, in order of cost, and whatever a plugin raises is a problem of its experiment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aimcore
from aimcore import InvalidValue, Problem
from aimcore.running.preflight import CHECKS, MEASURING, Check, check_study
from aimcore.running.preflight.checks import COSTS
from aimcore_objectives import NextPatch
from aimcore_sources.arrays import OpenArrays
from aimcore_trunks import ViT

TABLE = Path(aimcore.__file__).parents[1] / "docs" / "preflight.md"


def problems(study: Any, **how: Any) -> list[Problem]:
    with pytest.raises(InvalidValue) as caught:
        check_study(study, **how)
    return [Problem(*one) for one in caught.value.problems]


def test_checks_are_in_order_of_cost_and_after_those_they_depend_on() -> None:
    costs = [COSTS.index(check.reads) for check in CHECKS]
    assert costs == sorted(costs)
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(set(check.after) <= set(names[:number]) for number, check in enumerate(CHECKS))
    assert set(names) > MEASURING


def test_the_documentation_lists_every_check() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", TABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == [(check.name, check.reads, check.purpose) for check in CHECKS]


@pytest.mark.parametrize(("role", "part"), [("trunk", ViT), ("objective", NextPatch)])
def test_a_constructor_that_fails_is_a_problem_that_names_plugin_component_and_cause(
    make_study: Any, monkeypatch: pytest.MonkeyPatch, role: str, part: Any
) -> None:
    def build(*_: Any) -> Any:
        import torch

        return torch.nn.Linear(2, 2)(torch.empty(1, 3, device="meta"))

    monkeypatch.setattr(part, "build", build)
    found = problems(make_study("one", "two"), with_data=False)
    assert [path for path, _ in found] == ["one", "two"]
    plugin = part.__module__.partition(".")[0]
    assert found[0].message.startswith(f"{role} '{part.name}' of {plugin} cannot be built: RuntimeError: ")
    assert re.search(r"test_preflight\.py, line \d+\)$", found[0].message)


def test_an_error_that_no_check_expects_is_a_problem_and_the_others_go_on(
    make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_length(_: Any) -> int:
        raise OSError("the disk is gone")

    monkeypatch.setattr(OpenArrays, "__len__", no_length)
    study = make_study("one", "two")
    with pytest.raises(InvalidValue) as caught:
        check_study(study, world_size=3)
    reported = caught.value.problems
    assert [path for path, _ in reported] == ["one.data.batch_size", "one", "two.data.batch_size", "two"]
    assert reported[1][1].startswith("the check 'sources' ended with OSError: the disk is gone (")
    assert isinstance(caught.value.__cause__, OSError)


def test_checks_are_left_out_after_a_problem_in_those_they_depend_on(
    make_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def failing(_: Any) -> Iterator[Problem]:
        made.append("first")
        yield Problem("seed", "wrong")

    checks = (
        Check("first", "", failing),
        Check("second", "", lambda _: made.append("second") or (), after=("first",)),
        Check("third", "", lambda _: made.append("third") or ()),
        Check("fourth", "", lambda _: made.append("fourth") or (), reads="data"),
        Check("fifth", "", lambda _: made.append("fifth") or (), of_study=True),
    )
    monkeypatch.setattr("aimcore.running.preflight.CHECKS", checks)
    assert problems(make_study("one", "two"), with_data=False) == [("one.seed", "wrong"), ("two.seed", "wrong")]
    assert made == ["first", "third", "first", "third", "fifth"]
