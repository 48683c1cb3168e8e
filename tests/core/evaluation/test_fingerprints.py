"""What names features in a cache."""

from __future__ import annotations

import pytest
import torch
from core.evaluation.toys import Backwards, Shades, ToyObjective, ToyTrunk, ToyTrunkModule
from torch import nn

from aimcore.evaluation.feature_keys import described, key_of, weights_digest


def test_a_component_is_described_by_class_and_fields() -> None:
    assert described(Shades(length=3)) == {
        "class": "core.evaluation.toys.Shades",
        "length": 3,
        "labelled": True,
        "class_names": ["dark", "light"],
    }


def test_components_within_components_are_described_too() -> None:
    ordering = described(ToyObjective(ordering=Backwards()))["ordering"]
    assert ordering == {"class": "core.evaluation.toys.Backwards"}


def test_an_installed_component_carries_the_version_that_supplies_it() -> None:
    from importlib.metadata import version

    from aimcore_orderings import Raster

    assert described(Raster())["supplied_by"] == f"aimcore {version('aimcore')}"
    assert "supplied_by" not in described(ToyTrunk())


def test_a_key_depends_on_every_value_but_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": 2}), key_of({"b": 1}), key_of({"a": "1"})}) == 4


def test_equal_weights_have_equal_digests() -> None:
    assert weights_digest(ToyTrunkModule()) == weights_digest(ToyTrunkModule())


def _changed(what: str) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    nn.init.zeros_(module[0].weight)
    nn.init.zeros_(module[0].bias)
    if what == "weight":
        module[0].weight.data[1, 1] = 1e-7
    elif what == "buffer":
        module[1].running_mean += 1
    elif what == "name":
        module = nn.Sequential(nn.Identity(), *module)
    elif what == "shape":
        module[0].weight = nn.Parameter(torch.zeros(2, 3))
    elif what == "type":
        module[0].bfloat16()
    return module


@pytest.mark.parametrize("what", ["weight", "buffer", "name", "shape", "type"])
def test_other_weights_have_another_digest(what: str) -> None:
    assert weights_digest(_changed(what)) != weights_digest(_changed("nothing"))


def test_partitioned_weights_are_digested_by_their_parts() -> None:
    modules = [nn.Linear(2, 2, bias=False) for _ in range(2)]
    for module, part in zip(modules, ([1.0, 2.0], [1.0, 3.0]), strict=True):
        # As ZeRO stage 3 leaves a parameter between forwards.
        module.weight.data = torch.empty(0)
        module.weight.ds_tensor = torch.tensor(part)  # type: ignore[attr-defined]
    assert weights_digest(modules[0]) != weights_digest(modules[1])
