"""The training engine: DeepSpeed ZeRO under one loop. The only room that imports deepspeed, and only when it starts."""

from aimcore.engine.building import build_module, initial_module
from aimcore.engine.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    NothingToBeginWith,
    TrainingDiverged,
    WeightsChanged,
    WeightsMismatch,
    WeightsNotFinite,
    WeightsNotFound,
)
from aimcore.engine.loop import TrainingResult, train
from aimcore.engine.metrics import METRICS_FILE, read_metrics
from aimcore.engine.training_engine import StepResult, TrainingEngine

__all__ = [
    "METRICS_FILE",
    "CheckpointDamaged",
    "CheckpointMismatch",
    "NothingToBeginWith",
    "StepResult",
    "TrainingDiverged",
    "TrainingEngine",
    "TrainingResult",
    "WeightsChanged",
    "WeightsMismatch",
    "WeightsNotFinite",
    "WeightsNotFound",
    "build_module",
    "initial_module",
    "read_metrics",
    "train",
]
