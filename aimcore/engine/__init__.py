"""The training engine: one loop on DeepSpeed ZeRO. Only this package imports deepspeed, and only when it starts."""

from aimcore.engine.engine_errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    NothingToBeginWith,
    TrainingDiverged,
    WeightsChanged,
    WeightsMismatch,
    WeightsNotFinite,
    WeightsNotFound,
)
from aimcore.engine.module_building import begun_module, build_module, initial_module
from aimcore.engine.training_engine import StepResult, TrainingEngine
from aimcore.engine.training_loop import TrainingResult, train
from aimcore.io.metrics_lines import read_metrics
from aimcore.io.run_folder import METRICS_FILE

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
    "begun_module",
    "build_module",
    "initial_module",
    "read_metrics",
    "train",
]
