"""Parameters with rates of their own: multipliers of modules, layer-wise decay, optimizers of other plugins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from core.engine.toys import ToyObjective, ToyObjectiveModule, ToyTrunk, ToyTrunkModule, experiment, whole_batch
from torch import Tensor, nn

from aimcore import Batch, Experiment, InvalidValue, ObjectiveModule, TrunkModule, component
from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.images import images_of
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.engine import TrainingEngine, build_module, checkpoints
from aimcore.engine.engine_errors import CheckpointMismatch
from aimcore.engine.parameter_groups import parameter_groups, rate_multipliers, torch_optimizer
from aimcore_objectives import Classification
from aimcore_optimizers import AdamW
from aimcore_trunks import ViT

STAGES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (3, "bf16")]


@component("layered_toy")
class LayeredTrunk(ToyTrunk):
    """The toy trunk, which is one block of depth: its norm comes after it, all else is an embedding."""

    def build(self) -> TrunkModule:
        return LayeredTrunkModule(self.width, self.dropout)


class LayeredTrunkModule(ToyTrunkModule):
    def layer_of(self, name: str) -> int:
        return self.depth + 1 if name.startswith("norm.") else 0


@component("slow_headed_toy")
class SlowHeaded(ToyObjective):
    """The toy objective, whose head learns at a fifth of the rate."""

    share: float = 0.2

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = ToyObjectiveModule(self, trunk)
        module.rate_multipliers = {"head": self.share}
        return module


def layered(stage: int = 0, precision: str = "fp32", **optimizer: Any) -> Experiment:
    """The embedding learns at a quarter of the rate (0.5 ** 2), the head at a fifth, the norm at the whole rate."""
    settings = {"peak_lr": 0.01, "layer_decay": 0.5, "gradient_clipping": None, **optimizer}
    return experiment(stage, precision, trunk=LayeredTrunk(), objective=SlowHeaded(), optimizer=AdamW(**settings))


def test_layers_of_the_vit_have_the_multipliers_of_beit_and_mae() -> None:
    run = experiment(trunk=ViT(width=8, depth=2, num_heads=1, patch_size=4), objective=Classification(num_classes=3))
    found = rate_multipliers(build_module(run), AdamW(layer_decay=0.5))
    of_layers = {name.partition(".norm")[0].partition(".attention")[0]: value for name, value in found.items()}
    assert of_layers["trunk.patch_embedding.linear.weight"] == 0.125  # 0.5 ** (2 + 1 - 0)
    assert of_layers["trunk.patch_norm.weight"] == 0.125
    assert {value for name, value in found.items() if name.startswith("trunk.blocks.0.")} == {0.25}
    assert {value for name, value in found.items() if name.startswith("trunk.blocks.1.")} == {0.5}
    assert found["trunk.norm.weight"] == 1.0
    assert {value for name, value in found.items() if not name.startswith("trunk.")} == {1.0}


class Nested(nn.Module):
    def __init__(self, inner: object, outer: object) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.part.rate_multipliers = inner
        self.rate_multipliers = outer


def test_multipliers_of_modules_in_each_other_are_multiplied() -> None:
    found = rate_multipliers(Nested({"1": 0.5, "*.bias": 4.0}, {"part": 3}), AdamW())
    assert found == {"part.0.weight": 3.0, "part.0.bias": 12.0, "part.1.weight": 1.5, "part.1.bias": 6.0}


@pytest.mark.parametrize(
    ("outer", "message"),
    [
        ({"prat": 2.0}, r"Nested\.rate_multipliers names 'prat', which is no parameter or module of it"),
        ({"part": 0.0}, r"must be positive numbers, got 0\.0 for 'part': to train nothing of it, name it in Experim"),
        ({"part": float("nan")}, r"must be positive numbers, got nan for 'part'"),
        ({"part": "fast"}, r"must be positive numbers, got 'fast' for 'part'"),
        ([2.0], r"must map names to numbers, got \[2\.0\]"),
    ],
)
def test_multipliers_that_mean_nothing_are_refused(outer: object, message: str) -> None:
    with pytest.raises(BrokenContract, match=message):
        rate_multipliers(Nested({}, outer), AdamW())


def test_groups_are_the_parameters_of_one_decay_and_one_rate() -> None:
    module = Nested({"1": 0.5}, {})
    groups = parameter_groups(module, AdamW(peak_lr=0.1))
    first, second = module.part
    assert [(len(group.parameters), group.decays, group.peak_lr) for group in groups] == [
        (1, True, 0.1), (1, True, 0.05), (1, False, 0.1), (1, False, 0.05),
    ]  # fmt: skip
    assert groups[0].parameters == (first.weight,)
    assert groups[3].parameters == (second.bias,)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (None, InvalidValue, r"optimizer\.layer_decay: must be 1: LayeredTrunkModule does not assign parameters"),
        (3, BrokenContract, r"layer_of\('embed\.weight'\) must be 0 for embeddings to 2 \(depth \+ 1\) .*, got 3"),
        (True, BrokenContract, r"got True"),
    ],
)
def test_layers_that_are_none_are_refused(layer: Any, error: type[Exception], message: str) -> None:
    module = build_module(layered())

    def layer_of(name: str) -> Any:
        return TrunkModule.layer_of(module.trunk, name) if layer is None else layer

    module.trunk.layer_of = layer_of  # type: ignore[method-assign]
    with pytest.raises(error, match=message):
        rate_multipliers(module, layered().optimizer)


def test_a_rate_as_good_as_zero_is_refused() -> None:
    module = Nested({}, {"part": 1e-40})
    with pytest.raises(InvalidValue, match=r"gives part\.0\.weight a peak rate of 1e-43, which changes nothing"):
        rate_multipliers(module, AdamW(peak_lr=1e-3))


@pytest.mark.parametrize(("stage", "precision"), STAGES)
def test_the_first_update_is_as_large_as_the_rate_of_each_parameter(stage: int, precision: str) -> None:
    """Adam's first update moves a weight by rate x gradient / (|gradient| + epsilon): by the rate, but for its sign."""
    with TrainingEngine(layered(stage, precision, weight_decay=0.0)) as engine:
        before = engine.full_state_dict()
        result = engine.step([whole_batch(0)])
        after = engine.full_state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert result.learning_rate == 0.01
    assert moved["trunk.norm.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved["trunk.embed.weight"] == pytest.approx(0.0025, rel=1e-3)
    assert moved["trunk.table.places"] == pytest.approx(0.0025, rel=1e-3)
    assert moved["head.weight"] == pytest.approx(0.002, rel=1e-3)
    assert moved["trunk.frozen.weight"] == 0.0


def black(batch: Batch) -> Batch:
    """Without pixels to multiply with, the embedding has no gradient."""
    return Batch(images=images_of(batch.images.pixels_BCHW * 0, 4), sample_numbers_B=batch.sample_numbers_B)


@pytest.mark.parametrize(
    ("decay", "kept"),
    [("decoupled", 1 - 0.1), ("coupled", 1 - 0.25 * 0.01 * 0.1)],  # a quarter of the rate; the whole decay
)
@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16")])
def test_decoupled_decay_does_not_depend_on_the_multiplier(stage: int, precision: str, decay: str, kept: float) -> None:
    with TrainingEngine(layered(stage, precision, weight_decay=0.1, decay=decay)) as engine:
        before = engine.full_state_dict()["trunk.embed.weight"]
        engine.step([black(whole_batch(0))])
        after = engine.full_state_dict()["trunk.embed.weight"]
    torch.testing.assert_close(after, before * kept, rtol=1e-6, atol=0)


@component("toy_sgd")
class SGD(Optimizer):
    """SGD with momentum."""

    elementwise: ClassVar[bool] = True
    momentum: float = 0.9

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        own = [{"params": list(group.parameters)} for group in groups]
        return torch.optim.SGD(own, lr=self.peak_lr, momentum=self.momentum)


def weights_after(run: Experiment, folder: Path, lengths: list[int]) -> dict[str, Tensor]:
    """Weights after parts of training, with a checkpoint and a fresh engine between them."""
    for length in lengths:
        with TrainingEngine(run) as engine:
            checkpoints.resume(engine, folder)
            for _ in range(length):
                engine.step([whole_batch(engine.step_number)])
            checkpoints.save(engine, folder, seconds=0.0)
            weights = engine.full_state_dict()
    return weights


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32")])
@pytest.mark.parametrize("optimizer", [None, SGD(peak_lr=0.01, layer_decay=0.5)], ids=["adamw", "sgd"])
def test_rates_of_its_own_go_on_bit_for_bit(
    stage: int, precision: str, optimizer: Optimizer | None, tmp_path: Path
) -> None:
    run = layered(stage, precision, decay="decoupled", weight_decay=0.1)
    if optimizer is not None:
        run = experiment(stage, precision, trunk=LayeredTrunk(), objective=SlowHeaded(), optimizer=optimizer)
    at_once = weights_after(run, tmp_path / "once", [4])
    in_parts = weights_after(run, tmp_path / "parts", [2, 2])
    assert all(torch.equal(in_parts[name], value) for name, value in at_once.items())


def test_other_rates_or_another_optimizer_cannot_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    plain = experiment(trunk=LayeredTrunk(), objective=SlowHeaded(share=1.0))
    weights_after(plain, tmp_path, [1])
    for change, message in (
        ({"objective": SlowHeaded(share=0.5)}, r"rate_multipliers was none, now 0\.5 to 0\.5 \([0-9a-f]{16}\)\."),
        (
            {"optimizer": AdamW(layer_decay=0.5)},
            r"optimizer\.layer_decay was 1\.0, now 0\.5; rate_multipliers was none",
        ),
        ({"optimizer": SGD()}, r"optimizer\.name was adamw, now toy_sgd; optimizer\.momentum was None, now 0\.9"),
    ):
        run = experiment(**{"trunk": LayeredTrunk(), "objective": SlowHeaded(share=1.0), **change})
        with pytest.raises(CheckpointMismatch, match=message):
            weights_after(run, tmp_path, [1])


@pytest.mark.parametrize("stage", [0, 3])
def test_sgd_with_momentum_equals_its_formula(stage: int) -> None:
    """Two steps of one batch: w -= rate x g1, then w -= rate x (0.9 g1 + g2)."""
    module = build_module(experiment())
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    momenta = [torch.zeros_like(weight) for weight in weights]
    for _ in range(2):
        losses = module(whole_batch(0))
        means = [loss.weight * loss.sum / loss.num_targets for loss in losses.values()]
        gradients = torch.autograd.grad(sum(means), weights)
        with torch.no_grad():
            for weight, momentum, gradient in zip(weights, momenta, gradients, strict=True):
                momentum.mul_(0.9).add_(gradient)
                weight -= 0.01 * momentum
    run = experiment(stage, optimizer=SGD(peak_lr=0.01, gradient_clipping=None), num_steps=10**6)
    with TrainingEngine(run) as engine:
        for _ in range(2):
            engine.step([whole_batch(0)])
        found = engine.full_state_dict()
    torch.testing.assert_close(found, dict(module.state_dict()), rtol=1e-5, atol=1e-6)


@component("by_shape")
class ByShape(SGD):
    """An algorithm that reads shapes."""

    elementwise: ClassVar[bool] = False


def test_an_optimizer_that_is_not_elementwise_is_refused_where_shapes_are_lost() -> None:
    assert experiment(0, optimizer=ByShape()).optimizer == ByShape()
    with pytest.raises(InvalidValue, match=r"engine\.zero_stage: must be 0 with optimizer 'by_shape'"):
        experiment(1, optimizer=ByShape())


@component("adagrad")
class Adagrad(SGD):
    """DeepSpeed makes it anew, and loses its groups."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return torch.optim.Adagrad([{"params": list(group.parameters)} for group in groups])


@pytest.mark.parametrize("stage", [1, 3])
def test_an_optimizer_that_deepspeed_replaces_is_refused(stage: int) -> None:
    with pytest.raises(InvalidValue, match=rf"must be 0: at stage {stage} DeepSpeed makes Adagrad anew"):
        TrainingEngine(experiment(stage, optimizer=Adagrad()))


@component("wrong")
class Wrong(SGD):
    """Builds something else than it should."""

    what: str = "mixed"

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        every = [parameter for group in groups for parameter in group.parameters]
        built: Any = {
            "mixed": lambda: torch.optim.SGD(every),
            "few": lambda: torch.optim.SGD(groups[0].parameters),
            "other": lambda: torch.optim.SGD([nn.Parameter(torch.zeros(1))]),
            "none": lambda: None,
        }[self.what]()
        return built


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("mixed", "must not mix groups"),
        ("few", "must train all 4 parameters of the groups, got 1"),
        ("other", "must not mix groups"),
        ("none", r"must give a torch\.optim\.Optimizer, got None"),
    ],
)
def test_a_torch_optimizer_of_other_groups_is_refused(what: str, message: str) -> None:
    with pytest.raises(BrokenContract, match=rf"optimizer 'wrong': build\(groups\) {message}"):
        torch_optimizer(Nested({"0": 2.0}, {}), Wrong(what=what))


def test_the_old_name_makes_the_default_and_says_what_to_write() -> None:
    import aimcore

    said = r"write `from aimcore_optimizers import AdamW` and AdamW\(\.\.\.\)"
    with pytest.warns(DeprecationWarning, match=said) as caught:
        made = aimcore.Optimizer(peak_lr=0.5)
    assert made == AdamW(peak_lr=0.5)
    assert caught[0].filename == __file__
    assert experiment().optimizer == AdamW()
