"""What an objective does after each update: its own state, from whole float32 weights, at every stage and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from core.testing.mutants.teachers import Sound
from torch import Tensor, nn

from aimcore import Batch, ObjectiveModule, PatchGrid
from aimcore.contracts.assembly import assembled
from aimcore.contracts.errors import BrokenContract
from aimcore.engine import TrainingEngine, checkpoints
from aimcore.modeling.layers import frozen_copy, move_average
from aimcore.testing.fixtures import as_float32, batch_of, part_of, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.short_training import settings
from aimcore.testing.small_parts import StandInTrunk

MOMENTUM = 0.9
SETTINGS = [(0, "fp32"), (0, "autocast"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]


def batch(step: int = 0) -> Batch:
    return as_float32(batch_of(random_images(PatchGrid(2, 2), number=4, seed=step)))


def fresh() -> ObjectiveModule:
    with seeded():
        return assembled(StandInTrunk(), Sound(momentum=MOMENTUM))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_an_average_follows_the_whole_float32_weights_once_per_update(stage: int, precision: str) -> None:
    chosen = settings(zero_stage=stage, precision=precision, accumulation_steps=2)
    with seeded(), TrainingEngine(chosen, fresh()) as engine:
        expected = {name.removeprefix("teacher."): value for name, value in state_of(engine.module).items()}
        begun = {name: value.clone() for name, value in expected.items()}
        for step in range(3):
            engine.step([part_of(batch(step), 0, 2), part_of(batch(step), 2, 4)])
            weights = engine.full_state_dict()
            for name, average in expected.items():
                expected[name] = MOMENTUM * average + (1 - MOMENTUM) * weights[f"trunk.{name}"]
        found = {name.removeprefix("teacher."): value for name, value in state_of(engine.module).items()}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    assert max(float((found[name] - begun[name]).abs().max()) for name in found) > 1e-3


def test_it_is_reported_the_updates_done_and_those_of_the_whole_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[int, int, bool]] = []
    module = fresh()
    monkeypatch.setattr(type(module), "after_step", lambda _, *steps: calls.append((*steps, torch.is_grad_enabled())))
    with TrainingEngine(settings(accumulation_steps=2), module) as engine:
        for step in range(2):
            engine.step([part_of(batch(step), 0, 2), part_of(batch(step), 2, 4)])
            checkpoints.save(engine, tmp_path, seconds=0.0)
    assert calls == [(1, 2, False), (2, 2, False)]
    with TrainingEngine(settings(accumulation_steps=2), fresh()) as engine:
        checkpoints.resume(engine, tmp_path)
        engine.step([part_of(batch(2), 0, 2), part_of(batch(2), 2, 4)])
    assert calls[2:] == [(3, 2, False)]  # one more than planned: after a resumption it goes on counting


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (3, "bf16")])
def test_changing_a_parameter_there_is_refused_and_leaves_the_weights_whole(
    stage: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fresh()

    def scale(self: Any, *_: int) -> None:
        self.trunk.embed.weight.mul_(0)

    with TrainingEngine(settings(zero_stage=stage, precision=precision), module) as engine:
        monkeypatch.setattr(type(module), "after_step", scale)
        with pytest.raises(BrokenContract, match=r"after_step changes parameters \(trunk.embed.weight\): they"):
            engine.step([batch()])
        assert stage == 0 or float(engine.full_state_dict()["trunk.embed.weight"].abs().max()) > 0


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (2, "bf16"), (3, "bf16")])
def test_state_is_in_checkpoints_bit_for_bit(stage: int, precision: str, tmp_path: Path) -> None:
    chosen = settings(zero_stage=stage, precision=precision)
    with seeded(), TrainingEngine(chosen, fresh()) as engine:
        engine.step([batch(0)])
        checkpoints.save(engine, tmp_path, seconds=0.0)
        engine.step([batch(1)])
        expected = state_of(engine.module)
    with seeded(), TrainingEngine(chosen, fresh()) as engine:
        checkpoints.resume(engine, tmp_path)
        engine.step([batch(1)])
        found = state_of(engine.module)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_an_average_moved_in_a_forward_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fresh()
    forward = type(module).forward

    def moving(self: Any, given: Batch) -> Any:
        move_average(self.teacher, self.trunk, MOMENTUM)
        return forward(self, given)

    monkeypatch.setattr(type(module), "forward", moving)
    with (
        TrainingEngine(settings(zero_stage=3), module) as engine,
        pytest.raises(BrokenContract, match=r"the module \[0\]: move a frozen_copy of the same module, only in"),
    ):
        engine.step([batch()])


def test_a_frozen_copy_of_a_recurrent_layer_reads_its_moved_weights() -> None:
    layer = nn.GRU(3, 3)
    copied = frozen_copy(layer)
    assert not list(copied.parameters())
    inputs = torch.randn(4, 1, 3)
    torch.testing.assert_close(copied(inputs)[0], layer(inputs)[0])
    with torch.no_grad():
        layer.weight_ih_l0.add_(1.0)
    move_average(copied, layer, 0.0)
    torch.testing.assert_close(copied(inputs)[0], layer(inputs)[0])


def test_a_frozen_copy_shares_nothing_and_counts_shared_weights_once() -> None:
    first = nn.Linear(3, 3, bias=False)
    shared = nn.Sequential(first, nn.Linear(3, 3, bias=False))
    shared[1].weight = first.weight
    copied = frozen_copy(shared)
    assert copied[0].weight is copied[1].weight
    with torch.no_grad():
        first.weight.zero_()
    before = copied[0].weight.clone()
    move_average(copied, shared, 0.75)
    torch.testing.assert_close(copied[0].weight, 0.75 * before)
