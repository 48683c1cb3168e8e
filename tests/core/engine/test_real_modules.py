"""AIM's own parts train at every stage and precision that is allowed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from core.engine.toys import experiment

from aimcore import Batch, Experiment, InvalidValue
from aimcore.contracts.images import images_of
from aimcore.engine import TrainingEngine, build_module
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Checkerboard
from aimcore_trunks import ViT

EVERY = itertools.product(range(4), ("fp32", "autocast", "bf16"))
CASES = [(stage, precision) for stage, precision in EVERY if (stage, precision) != (0, "bf16")]
TRUNKS = (
    ViT(width=16, depth=2, num_heads=2, patch_size=4),
    ViT(width=16, depth=2, num_heads=2, patch_size=4, norm="rms_norm", ffn="swiglu", positions="learned", grid=(2, 2)),
)


def next_patch(stage: int, precision: str, **changes: Any) -> Experiment:
    objective = NextPatch(ordering=Checkerboard(), head=MLPHead(width=16, depth=1))
    return experiment(stage, precision, **{"trunk": TRUNKS[0], "objective": objective, **changes})


def batch(step: int) -> Batch:
    pixels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    return Batch(images=images_of(pixels, 4), sample_numbers_B=torch.arange(8) + 8 * step)


@pytest.mark.parametrize(("stage", "precision"), CASES)
@pytest.mark.parametrize("trunk", TRUNKS, ids=["aim", "aimv2"])
def test_every_stage_and_precision_trains_and_evaluates(stage: int, precision: str, trunk: ViT) -> None:
    with TrainingEngine(next_patch(stage, precision, trunk=trunk)) as engine:
        before = engine.full_state_dict()
        losses = [engine.step([batch(0)]).losses["next_patch"] for _ in range(3)]
        after = engine.full_state_dict()
        engine.module.eval()
        device = engine.world.device
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"):
            evaluated = engine.module(batch(0).to(device))["next_patch"]
    assert losses[2] < losses[0]
    assert all(not torch.equal(before[name], after[name]) and after[name].dtype == torch.float32 for name in before)
    assert evaluated.per_position_BN is not None
    assert float(evaluated.sum) > 0


@pytest.mark.parametrize(("stage", "precision"), [case for case in CASES if case[1] != "fp32"])
def test_reduced_precision_stays_close_to_float32(stage: int, precision: str) -> None:
    found = []
    for run in (next_patch(0, "fp32"), next_patch(stage, precision)):
        with TrainingEngine(run) as engine:
            found.append([engine.step([batch(step)]).losses["next_patch"] for step in range(3)])
    assert found[1] == pytest.approx(found[0], rel=1e-2)
    assert found[1] != found[0]


def test_bf16_without_partitioning_is_refused() -> None:
    with pytest.raises(InvalidValue, match="bf16 at ZeRO stage 0 trains silently wrong"):
        next_patch(0, "bf16")


def test_weights_are_drawn_without_the_generators_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch would ask all eight for their states.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert build_module(next_patch(0, "fp32")).trunk.width == 16
