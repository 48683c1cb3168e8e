"""Modules that do not keep the contract are refused by what it asks for, in a run as in the kit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from aimcore import (
    Attention,
    Batch,
    DecoderModule,
    Features,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    Reading,
    Trunk,
    TrunkModule,
    component,
)
from aimcore.contracts.assembly import assembled
from aimcore.contracts.errors import BrokenContract
from aimcore.engine import TrainingEngine
from aimcore.testing import outcomes_of
from aimcore.testing.fixtures import as_float32, batch_of, random_images
from aimcore.testing.short_training import settings
from aimcore.testing.small_parts import (
    StandInHeadModule,
    StandInObjective,
    StandInObjectiveModule,
    StandInTrunk,
    StandInTrunkModule,
)

BATCH = as_float32(batch_of(random_images(number=4)))


class Bent(StandInObjectiveModule):
    """Gives what its objective makes of the losses."""

    bend: Callable[[Loss], Any]

    def forward(self, batch: Batch) -> dict[str, Loss]:
        bent: dict[str, Loss] = type(self).bend(super().forward(batch)["patch_mean"])
        return bent


@component("bent")
class BentObjective(Objective):
    """Gives something else than a dict of losses."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return Bent(trunk, StandInHeadModule(trunk.width, 1), Reading())


DICT = "forward must return a dict {name: Loss(sum, num_targets)}, got "
LOSSES: dict[str, tuple[Callable[[Loss], Any], str]] = {
    "a bare tensor": (lambda loss: loss.sum, f"{DICT}a tensor []"),
    "a list": (lambda loss: [loss], f"{DICT}list"),
    "nothing": (lambda _: {}, f"{DICT}an empty dict"),
    "bare tensors": (lambda loss: {"a": loss.sum}, "must be Loss(sum, num_targets), got a tensor [] of float32"),
    "a number as count": (lambda loss: {"a": Loss(loss.sum, 48)}, "its num_targets must be a scalar tensor, as in"),
    "a number as sum": (lambda loss: {"a": loss._replace(sum=1.0)}, "its sum must be a scalar tensor of floats"),
    "a loss per patch": (lambda loss: {"a": loss._replace(sum=loss.sum[None])}, "over all targets, got a tensor [1]"),
    "a tensor as weight": (lambda loss: {"a": loss._replace(weight=loss.sum)}, "its weight must be a number"),
    "a row of losses": (lambda loss: {"a": loss._replace(per_position_BN=torch.ones(3))}, "its per_position_BN must"),
}  # fmt: skip


@pytest.mark.parametrize("what", LOSSES)
def test_what_is_no_dict_of_losses_is_refused_at_the_first_forward(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bend, message = LOSSES[what]
    monkeypatch.setattr(Bent, "bend", staticmethod(bend), raising=False)
    module = assembled(StandInTrunk(), BentObjective())
    with pytest.raises(BrokenContract) as refused:
        module(BATCH)
    assert str(refused.value).startswith("objective 'bent'")
    assert message in str(refused.value)


def test_other_losses_than_were_counted_are_refused_in_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bent, "bend", staticmethod(lambda loss: {"other": loss}), raising=False)
    with (
        TrainingEngine(settings(), assembled(StandInTrunk(), BentObjective())) as engine,
        pytest.raises(
            BrokenContract, match=r"gives the losses \['other'\], and counts\(batch\) names \['patch_mean'\]"
        ),
    ):
        engine.step([BATCH])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (48, r"must give \{name of a loss: its number of targets\}, got 48"),
        ({"patch_mean": torch.tensor(48)}, "'patch_mean' is a tensor"),
    ],
)
def test_counts_that_are_no_ints_by_name_are_refused(
    counts: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bent, "counts", lambda *_: counts)
    with (
        TrainingEngine(settings(), assembled(StandInTrunk(), BentObjective())) as engine,
        pytest.raises(BrokenContract, match=message),
    ):
        engine.step([BATCH])


class Trunkless(ObjectiveModule):
    """Calls its trunk something else."""

    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__()
        self.encoder = trunk

    counts = forward = None  # type: ignore[assignment]


@component("misbuilt")
class Misbuilt(Objective):
    """Builds what is no objective module."""

    kind: str

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        built: dict[str, Any] = {"nothing": None, "a layer": nn.Identity(), "no trunk": Trunkless(trunk)}
        module: ObjectiveModule = built[self.kind]
        return module


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", r"'misbuilt': build\(trunk\) must give an ObjectiveModule, got None"),
        ("a layer", r"'misbuilt': build\(trunk\) must give an ObjectiveModule, got Identity"),
        ("no trunk", "'misbuilt': Trunkless must set self.trunk in its constructor to the trunk that build"),
    ],
)
def test_what_is_no_objective_module_is_refused_when_it_is_built(kind: str, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        assembled(StandInTrunk(), Misbuilt(kind=kind))


class TensorTrunk(StandInTrunkModule):
    """Gives its tokens alone."""

    def forward(self, images: Images, reading: Reading) -> Any:
        return super().forward(images, reading).tokens_BND


class NarrowTrunk(StandInTrunkModule):
    """Gives tokens of half its width."""

    def forward(self, images: Images, reading: Reading) -> Any:
        features = super().forward(images, reading)
        return features._replace(tokens_BND=features.tokens_BND[..., :8])


class DepthlessTrunk(StandInTrunkModule):
    """Does not say how deep it is."""

    def __init__(self, patch_size: int) -> None:
        super().__init__(patch_size)
        del self.depth


@component("bent")
class BentTrunk(Trunk):
    """Builds a module of another kind."""

    kind: str
    patch_size: int = 4

    def build(self) -> TrunkModule:
        kinds = {"tensor": TensorTrunk, "narrow": NarrowTrunk, "depthless": DepthlessTrunk}
        module: Any = nn.Identity() if self.kind == "layer" else kinds[self.kind](4)
        return module  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (BentTrunk(kind="layer"), r"trunk 'bent': build\(\) must give a TrunkModule, got Identity"),
        (
            BentTrunk(kind="depthless"),
            "trunk 'bent': DepthlessTrunk must set self.depth in its constructor to the number",
        ),
        (BentTrunk(kind="tensor", patch_size=2), "trunk 'bent' has patches of 2 px, and its module of 4 px"),
    ],
)
def test_what_is_no_trunk_module_is_refused_when_it_is_built(trunk: Trunk, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        assembled(trunk, StandInObjective())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tensor", r"trunk 'bent': forward must return Features\(tokens_BND, .+\), got a tensor \[4, 12, 16\]"),
        ("narrow", r"trunk 'bent': tokens must have the module's width, 16, got a tensor \[4, 12, 8\]"),
    ],
)
def test_a_trunk_that_returns_no_features_is_refused_at_its_first_forward(kind: str, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        assembled(BentTrunk(kind=kind), StandInObjective())(BATCH)


class PairHead(StandInHeadModule):
    """Gives its predictions in a tuple."""

    def forward(self, features: Features, attention: Attention, where_M: torch.Tensor) -> Any:
        return (super().forward(features, attention, where_M),)


class TensorDecoder(DecoderModule):
    """Gives its logits alone."""

    def forward(self, *_: Any) -> Any:
        return torch.ones(1, 2)


class Decoding(StandInObjectiveModule):
    """Calls a decoder."""

    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__(trunk, StandInHeadModule(trunk.width, 1), Reading())
        self.decoder = TensorDecoder()

    def forward(self, batch: Batch) -> dict[str, Loss]:
        self.decoder(None, None, None, None, None)
        return super().forward(batch)


@component("parts")
class WithParts(Objective):
    """Has a head or a decoder that returns something else."""

    kind: str

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        head = PairHead(trunk.width, 1)
        return StandInObjectiveModule(trunk, head, Reading()) if self.kind == "head" else Decoding(trunk)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("head", r"'parts': PairHead.forward must return predictions, a tensor \[M, K\], got tuple"),
        (
            "decoder",
            r"'parts': TensorDecoder.forward must return Decoded\(patches_MK, logits_MV\), got a tensor",
        ),
    ],
)
def test_heads_and_decoders_that_return_something_else_are_refused(kind: str, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        assembled(StandInTrunk(), WithParts(kind=kind))(BATCH)


def test_the_kit_says_of_a_broken_contract_what_a_run_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bent, "bend", staticmethod(LOSSES["a number as count"][0]), raising=False)
    faults = {outcome.fault for outcome in outcomes_of(BentObjective()) if outcome.fault}
    assert faults == {
        "objective 'bent', loss 'a': its num_targets must be a scalar tensor, as in torch.tensor(len(loss_M)), got 48"
    }
