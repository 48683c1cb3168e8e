"""How recipes differ: paths, values, components of other names, versions."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from aimcore.recipe.difference import (
    ABSENT,
    Difference,
    DifferingField,
    differences_between,
    differing_fields,
    in_words,
)


def recipe(**changes: Any) -> dict[str, Any]:
    experiment = {
        "name": "one",
        "objective": {"name": "next_patch", "head": {"name": "mlp", "width": 16, "depth": 2}},
        "optimizer": {"peak_lr": 0.001, "betas": [0.9, 0.95]},
        "probes": [],
        "seed": 0,
    }
    return {"schema_version": 1, "experiment": experiment | changes}


def test_equal_recipes_do_not_differ() -> None:
    assert differences_between(recipe(), copy.deepcopy(recipe())) == ()


def test_fields_are_reported_by_their_paths_in_order() -> None:
    other = recipe(name="two", optimizer={"peak_lr": 0.001, "betas": [0.9, 0.999]}, seed=1)
    assert differences_between(recipe(), other) == (
        Difference("name", "one", "two"),
        Difference("optimizer.betas", [0.9, 0.95], [0.9, 0.999]),
        Difference("seed", 0, 1),
    )


def test_another_component_is_reported_by_its_name_and_then_by_its_fields() -> None:
    other = recipe(objective={"name": "next_patch", "head": {"name": "transformer", "width": 32, "num_heads": 4}})
    assert differences_between(recipe(), other) == (
        Difference("objective.head", {"name": "mlp"}, {"name": "transformer"}),
        Difference("objective.head.width", 16, 32),
        Difference("objective.head.depth", 2, ABSENT),
        Difference("objective.head.num_heads", ABSENT, 4),
    )


def test_what_only_one_has_is_reported_whole() -> None:
    knn = {"name": "knn", "k": 20}
    assert differences_between(recipe(), recipe(probes=[knn])) == (Difference("probes.0", ABSENT, knn),)
    assert differences_between(recipe(part=None), recipe(part={"url": "a"})) == (
        Difference("part", None, {"url": "a"}),
    )


def test_any_number_of_recipes_are_compared_by_the_same_rules() -> None:
    one = recipe(probes=[{"name": "knn", "k": 20}])["experiment"]
    other = recipe(probes=[{"name": "knn", "k": 5}], optimizer={"peak_lr": 0.001})["experiment"]
    assert [*differing_fields([one, recipe()["experiment"], other])] == [
        DifferingField("optimizer.betas", ([0.9, 0.95], [0.9, 0.95], ABSENT)),
        DifferingField("probes.0", ({"name": "knn", "k": 20}, ABSENT, {"name": "knn", "k": 5})),
    ]
    for alone in ([], [one], [one, one, one]):
        assert [*differing_fields(alone)] == []


def test_true_is_not_one() -> None:
    assert differences_between(recipe(seed=1), recipe(seed=True)) == (Difference("seed", 1, True),)


def test_versions_are_compared_where_both_have_some() -> None:
    old = recipe() | {"aimcore": "0.1", "plugins": {"aimcore": {"version": "0.1"}, "hilbert": {"version": "1.0"}}}
    new = recipe() | {"aimcore": "0.2", "plugins": {"aimcore": {"version": "0.2"}}}
    assert differences_between(old, new) == (
        Difference("aimcore", "0.1", "0.2"),
        Difference("plugins.hilbert", "1.0", ABSENT),
    )
    assert differences_between(old, recipe()) == ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ABSENT, "-"),
        (None, "null"),
        ("raster", '"raster"'),
        ({"name": "raster"}, "raster"),
        ({"name": "fixed_random", "seed": 3}, "fixed_random(seed=3)"),
        ({"peak_lr": 0.1, "betas": [0.9, 0.95]}, "(peak_lr=0.1, betas=[0.9, 0.95])"),
        ({}, "()"),
    ],
)
def test_values_are_reported_in_a_line(value: Any, words: str) -> None:
    assert in_words(value) == words
