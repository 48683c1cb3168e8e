"""Targets with weights: frozen, whole and float32 at every ZeRO stage, kept in checkpoints, judged by what they see."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from core.engine.toys import experiment, whole_batch
from core.testing.mutants.targets import CodeBook, FarSighted, RandomCodes, Teacher
from torch.nn import functional

from aimcore import Experiment, Target, TargetModule, built_target, component
from aimcore.contracts.errors import BrokenContract
from aimcore.engine import TrainingEngine, build_module, checkpoints
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.report.sample_making import compute_samples
from aimcore.testing import Case
from aimcore.testing.fixtures import GRID
from aimcore.testing.runner import verdict_of
from aimcore.testing.small_parts import StandInTrunk
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Spiral

SETTINGS = [(0, "fp32"), (0, "autocast"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]


def predicting(target: Target, stage: int = 0, precision: str = "fp32") -> Experiment:
    from aimcore_trunks import ViT

    objective = NextPatch(target=target, head=LinearHead(), prefix=None)
    trunk = ViT(width=16, depth=2, num_heads=2, patch_size=4)
    return experiment(stage, precision, trunk=trunk, objective=objective)


def test_values_do_not_depend_on_the_autocast_of_the_run() -> None:
    module = build_module(predicting(Teacher()))
    batch = whole_batch(0)
    expected = module.target(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.target(batch), expected)
    assert not torch.equal(expected.bfloat16().float(), expected)


def trained(target: Target, stage: int, precision: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    with TrainingEngine(predicting(target, stage, precision)) as engine:
        losses = [engine.step([whole_batch(step)]).losses["next_patch"] for step in range(3)]
        return losses, {name: value.clone() for name, value in engine.module.named_buffers()}


def test_codes_and_their_loss_are_those_computed_by_hand() -> None:
    module = build_module(predicting(RandomCodes()))
    assert isinstance(module.target, CodeBook)
    batch = whole_batch(0)
    expected = [
        [max(range(4), key=lambda code: float((weight @ patch) @ entries[code])) for patch in image]
        for weight, entries in [(module.target.project.weight, module.target.entries_CE)]
        for image in batch.images.patches_BNF
    ]
    codes_BN = module.target(batch)
    assert codes_BN.tolist() == expected
    predictions_MK = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    loss_M = module.target.loss(predictions_MK, torch.tensor([0, 3]))
    by_hand = [torch.log(torch.tensor(2.718281828**2 + 3)) - 2, torch.log(torch.tensor(2.718281828 + 3))]
    torch.testing.assert_close(loss_M, torch.stack(by_hand))


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
@pytest.mark.parametrize("target", [RandomCodes(), Teacher()], ids=["codes", "teacher"])
def test_its_weights_stay_as_they_were_built_whole_and_float32(target: Target, stage: int, precision: str) -> None:
    built = {f"target.{name}": value for name, value in build_module(predicting(target)).target.named_buffers()}
    _, buffers = trained(target, stage, precision)
    assert built.keys() <= buffers.keys()
    for name, value in built.items():
        assert buffers[name].dtype == torch.float32
        assert torch.equal(buffers[name], value)


@pytest.mark.parametrize("target", [RandomCodes(), Teacher()], ids=["codes", "teacher"])
def test_losses_are_alike_at_every_stage(target: Target) -> None:
    whole, _ = trained(target, 0, "fp32")
    for stage in (2, 3):
        assert trained(target, stage, "fp32")[0] == pytest.approx(whole, rel=1e-5)
    assert whole[0] != whole[1]


def test_no_optimiser_has_them_and_training_mode_leaves_them_in_evaluation_mode() -> None:
    module = build_module(predicting(Teacher()))
    assert not list(module.target.parameters())
    assert not any(name.startswith("target.") for name, _ in module.named_parameters())
    module.train()
    assert module.training
    assert not any(part.training for part in module.target.modules())


def test_a_resumed_run_goes_on_with_the_code_book_of_the_checkpoint(tmp_path: Path) -> None:
    chosen = predicting(RandomCodes(), stage=2)
    with TrainingEngine(chosen) as engine:
        engine.step([whole_batch(0)])
        kept = engine.module.target.entries_CE.clone()
        checkpoints.save(engine, tmp_path, seconds=0.0, final=True)
        expected = engine.step([whole_batch(1)]).losses
    with TrainingEngine(chosen) as engine:
        engine.module.target.entries_CE.zero_()
        checkpoints.resume(engine, tmp_path)
        assert torch.equal(engine.module.target.entries_CE, kept)
        assert engine.step([whole_batch(1)]).losses == pytest.approx(expected, rel=1e-6)


class FromAFile(CodeBook):
    in_checkpoints: ClassVar[bool] = False

    def __init__(self, patch_size: int, num_channels: int) -> None:
        super().__init__(patch_size, num_channels)
        for weight in self.parameters():
            values = torch.arange(weight.numel()).reshape(weight.shape) % 7 - 3.0  # as if read from a file
            weight.data.copy_(values)
        self.register_buffer("mean", torch.ones(3))


@component("from_a_file")
class CodesFromAFile(RandomCodes):
    """A code book that every build reads anew."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule:
        return FromAFile(patch_size, num_channels)


def test_weights_that_are_read_from_a_file_need_not_be_in_checkpoints(tmp_path: Path) -> None:
    chosen = predicting(CodesFromAFile(), stage=2)
    with TrainingEngine(chosen) as engine:
        assert not any(name.startswith("target.") for name in engine.full_state_dict())
        engine.step([whole_batch(0)])
        checkpoints.save(engine, tmp_path, seconds=0.0, final=True)
        expected = engine.step([whole_batch(1)]).losses
    with TrainingEngine(chosen) as engine:
        checkpoints.resume(engine, tmp_path)
        assert engine.step([whole_batch(1)]).losses == pytest.approx(expected, rel=1e-6)


def test_pixel_targets_add_nothing_to_a_module() -> None:
    from aimcore_targets import NormalizedPixels, Pixels

    for target in (Pixels(), NormalizedPixels()):
        assert not any(name.startswith("target") for name in build_module(predicting(target)).state_dict())


def test_validation_scores_the_same_codes_as_training() -> None:
    module, batch = build_module(predicting(RandomCodes())), whole_batch(0)
    codes_BN = module.train().target(batch)
    with eval_mode(module):
        losses = module(batch)
        assert torch.equal(module.target(batch), codes_BN)
    predictions_MK, steps = module._predict(batch)
    expected = functional.cross_entropy(predictions_MK, codes_BN.flatten()[steps.target_M], reduction="sum")
    torch.testing.assert_close(losses["next_patch"].sum, expected)


def test_pictures_say_that_codes_cannot_be_drawn() -> None:
    chosen = predicting(RandomCodes())
    samples = compute_samples(chosen, build_module(chosen), "now")
    assert samples.absent["predictions"] == "target 'sound_code_book' cannot be converted to pixels"
    assert samples.predicted_BHWC is None


@pytest.mark.parametrize("target", [RandomCodes(), Teacher()], ids=["codes", "teacher"])
def test_next_patch_prediction_of_them_is_causal(target: Target) -> None:
    objective = NextPatch(ordering=Spiral(), target=target, head=LinearHead(), prefix=None)
    assert verdict_of(Case("weights", StandInTrunk(), objective, GRID)).word == "causal"


def test_a_teacher_that_hides_what_it_sees_is_called_a_leak() -> None:
    objective = NextPatch(target=FarSighted(), head=LinearHead(), prefix=None)
    verdict = verdict_of(Case("hidden", StandInTrunk(), objective, GRID))
    assert verdict.word == "LEAKS"
    assert "reads its own target" in verdict.findings[0]


@component("empty")
class Empty(Target):
    """Gives neither values nor a module."""

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 1

    def loss(self, predictions_MK: torch.Tensor, values_M: torch.Tensor) -> torch.Tensor:
        return predictions_MK[:, 0]


@component("unmodular")
class Unmodular(Empty):
    """Builds something else than a module."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule:
        return torch.nn.Linear(1, 1)  # type: ignore[return-value]


class Flat(TargetModule):
    def forward(self, batch: object) -> torch.Tensor:
        return torch.zeros(8, 3)


@component("misshapen")
class Misshapen(Empty):
    """Gives values of fewer patches than there are."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule:
        return Flat()


def test_a_target_that_breaks_its_contract_is_named() -> None:
    with pytest.raises(BrokenContract, match=r"'empty' must define values\(batch\), or build\(\) a TargetModule"):
        built_target(Empty(), 4, 3)
    with pytest.raises(BrokenContract, match=r"'unmodular': build\(\) must give a TargetModule or None, got Linear"):
        built_target(Unmodular(), 4, 3)
    with pytest.raises(BrokenContract, match=r"values must be .* \[B, N\] \[8, 4\], got a tensor \[8, 3\] of float32"):
        built_target(Misshapen(), 4, 3)(whole_batch(0))
    with pytest.raises(NotImplementedError, match=r"has no values without its module: .*aimcore\.built_target"):
        RandomCodes().values(whole_batch(0))
