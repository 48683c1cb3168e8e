"""Modules of version 0.1 can be imported under their old names, with a warning."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import aimcore
from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import PatchGrid, PixelStatistics
from aimcore.contracts.results import Loss
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore_objectives import NextPatch
from aimcore_trunks import ViT

OLD = sorted(path.stem for path in (Path(aimcore.__file__).parent / "renamed").glob("[a-z]*.py"))


def imported_anew(name: str) -> object:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.mark.parametrize("name", [name for name in OLD if name != "forwarding"])
def test_names_of_an_old_module_come_with_a_warning_that_says_what_to_write(name: str):
    old = imported_anew(f"aimcore.{name}")
    new = importlib.import_module(re.search(r":mod:`(aimcore[\w.]+)`", old.__doc__ or "")[1])
    public = next(
        one
        for one, value in vars(new).items()
        if getattr(value, "__module__", "") == new.__name__ or (one.isupper() and one[0] != "_")
    )
    home = "aimcore" if public in aimcore.__all__ else re.escape(new.__name__)
    with pytest.warns(DeprecationWarning, match=rf"aimcore\.{name} has moved.* from {home} import {public}$"):
        assert getattr(old, public) is getattr(new, public)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("values", "PatchGrid", PatchGrid),
        ("values", "Loss", Loss),
        ("modules", "TrunkModule", TrunkModule),
        ("roles", "Trunk", Trunk),
        ("roles", "PixelStatistics", PixelStatistics),
    ],
)
def test_an_old_module_gives_what_is_there_now(module: str, name: str, value: object):
    assert getattr(imported_anew(f"aimcore.{module}"), name) is value


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_module_refuses_unknown_names():
    with pytest.raises(AttributeError, match=r"aimcore\.values.*no attribute 'Nope'"):
        imported_anew("aimcore.values").Nope  # noqa: B018


def test_a_loss_takes_and_gives_its_scored_patches_under_the_old_name():
    patch_BN = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.warns(DeprecationWarning, match=r"place_BN is now Loss\.scored_patch_BN.* aimcore 0\.3"):
        loss = Loss(torch.tensor(1.0), torch.tensor(2), place_BN=patch_BN)  # type: ignore[call-arg]
    assert loss.scored_patch_BN is patch_BN
    assert loss._replace(weight=2.0).scored_patch_BN is patch_BN
    with pytest.warns(DeprecationWarning, match="scored_patch_BN"):
        assert loss.place_BN is patch_BN


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_decorator_can_be_used_after_the_old_module_of_its_name_is_imported():
    imported_anew("aimcore.component")

    from aimcore import Ordering, component

    @component("anything")
    class Anything(Ordering):
        def permutation(self, grid):
            raise NotImplementedError

    assert Anything().name == "anything"


@pytest.mark.parametrize(("old", "new"), [("Material", "EvaluationData"), ("Captioned", "Captioned")])
def test_names_that_left_evaluation_are_found_there_with_a_warning(old: str, new: str):
    from aimcore import evaluation

    with pytest.warns(DeprecationWarning, match=rf"aimcore\.evaluation\.{old} is now .*\.{new}, .* aimcore 0\.3"):
        assert getattr(evaluation, old) is getattr(aimcore, new)


def test_old_properties_are_read_with_a_warning():
    with pytest.warns(DeprecationWarning, match=r"NextPatch\.needs is now NextPatch\.requires"):
        assert NextPatch().needs == NextPatch().requires
    trunk = ViT(width=16, depth=1, num_heads=2)
    with pytest.warns(DeprecationWarning, match=r"ViT\.can is now ViT\.capabilities"):
        assert trunk.can == trunk.capabilities


def test_overrides_of_old_properties_are_read_by_their_new_names():
    with pytest.warns(DeprecationWarning, match=r"Older overrides can, .*: call it capabilities"):

        class Older(ViT):
            @property
            def can(self) -> frozenset[str]:
                return frozenset({"causal", "hide"})

    assert Older(width=16, depth=1, num_heads=2).capabilities == {"causal", "mask"}


def test_old_keywords_and_fields_of_values_work_with_a_warning():
    mask_BN = torch.zeros(1, 4, dtype=torch.bool)
    with pytest.warns(DeprecationWarning, match=r"Reading\.hidden_BN is now Reading\.masked_BN"):
        reading = Reading(hidden_BN=mask_BN)
    assert reading.masked_BN is mask_BN
    with pytest.warns(DeprecationWarning, match=r"Features\.places_BN2 is now Features\.positions_BN2"):
        features = Features(tokens_BND=torch.zeros(1, 4, 2), places_BN2=torch.zeros(1, 4, 2), valid_BN=~mask_BN)
    with pytest.warns(DeprecationWarning, match=r"Features\.places_BN2"):
        assert features.places_BN2 is features.positions_BN2
