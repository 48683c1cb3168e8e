"""A few steps of training, in this process, at any ZeRO stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.optimizers import Optimizer
from aimcore.engine import TrainingEngine
from aimcore.experiment import Data, Engine, Experiment
from aimcore.testing.fixtures import as_float32
from aimcore.testing.requirements import explained, require, seeded
from aimcore.testing.small_parts import StandInObjective, StandInOptimizer, StandInSource, StandInTrunk

_NUM_STEPS = 2
_OPTIMIZER = StandInOptimizer(peak_lr=1e-2)
_TOLERANCE = 1e-4
"""Largest relative difference of float32 losses due to the order of summation."""

_RULES = (
    "At stage 3 a module's weights exist only during its own forward: return tensors, NamedTuples or dicts, use a "
    "weight only inside the forward of the module that owns it, and never use another module's parts"
)


def trains_alike_at_stages_0_and_3(build: Callable[[], ObjectiveModule], batch: Batch) -> None:
    """Train two steps at ZeRO stage 0 and at stage 3, from the same weights.

    Raises:
        AssertionError: a stage fails, or the losses differ.
    """
    losses = {}
    for stage in (0, 3):
        with explained(f"does not train at ZeRO stage 3. {_RULES}" if stage else "does not train"):
            losses[stage] = _losses(build, as_float32(batch), stage)
    for step, (plain, partitioned) in enumerate(zip(losses[0], losses[3], strict=True)):
        require(
            abs(plain - partitioned) <= _TOLERANCE * abs(plain),
            f"at ZeRO stage 3 the loss of step {step} is {partitioned:.7g}, at stage 0 {plain:.7g}. {_RULES}",
        )


def _losses(build: Callable[[], ObjectiveModule], batch: Batch, stage: int) -> list[float]:
    with seeded():
        module = build()
    with seeded(), TrainingEngine(settings(zero_stage=stage), module) as engine:
        return [sum(engine.step([batch]).losses.values()) for _ in range(_NUM_STEPS)]


def settings(*, optimizer: Optimizer = _OPTIMIZER, **engine: Any) -> Experiment:
    """Return an experiment with the settings ``engine`` and ``optimizer``; its other parts are not used."""
    chosen: dict[str, Any] = {"num_threads": torch.get_num_threads(), "precision": "fp32", **engine}
    data = Data(train=StandInSource(), validation=StandInSource(), batch_size=4, image_size=4)
    return Experiment(
        name="conformance",
        data=data,
        trunk=StandInTrunk(),
        objective=StandInObjective(),
        num_steps=_NUM_STEPS,
        optimizer=optimizer,
        engine=Engine(**chosen),
    )
