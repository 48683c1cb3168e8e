"""DeepSpeed's configuration of an experiment, every number explicit."""

from __future__ import annotations

from typing import Any

import torch

from aimcore.data.sampling import micro_batch_size
from aimcore.experiment import Engine, Experiment

_MAX_BUCKET = 500_000_000
"""DeepSpeed's default bucket size. It allocates this many numbers, so small models get smaller buckets."""
MAX_LIVE_PARAMETERS = 1_000_000_000
"""Largest number of weights that a process gathers at stage 3 at any time (DeepSpeed's default)."""
_KEPT_WHOLE = 100_000
"""Parameters with fewer values are not partitioned at stage 3 (DeepSpeed's default). The threshold is lower for small
models: otherwise none of their parameters would be partitioned, and tests with small models would not cover stage 3."""


def bucket_size(num_parameters: int) -> int:
    """Return the number of values that are communicated at once; DeepSpeed refuses odd numbers at stages 1 and 2."""
    return min(_MAX_BUCKET, num_parameters + num_parameters % 2)


def sums_in_bfloat16(engine: Engine) -> bool:
    """Whether gradients of processes and micro-batches are rounded to bfloat16 when they are added.

    At stage 1 DeepSpeed adds in float32 only with another optimizer class, whose checkpoints have another layout.
    """
    return engine.precision == "bf16" and engine.zero_stage == 1 and not engine.offload_optimizer


def deepspeed_config(experiment: Experiment, *, world_size: int, num_parameters: int) -> dict[str, Any]:
    """The dictionary for ``deepspeed.initialize``.

    Precision "autocast" is absent: the engine enters its own autocast context inside the module, because DeepSpeed's
    is a global switch that outlives an engine and reduces gradients in bfloat16.

    Raises:
        InvalidValue: the batch does not divide over ranks and accumulation steps.
    """
    data, engine = experiment.data, experiment.engine
    # At native resolution steps differ in size; DeepSpeed only compares these numbers with each other.
    batch_size = data.batch_size if data.native is None else data.native.images_multiple_of
    bucket = bucket_size(num_parameters)
    # At stage 0 the engine clips: DeepSpeed would clip too, but does not return the norm.
    clipping = (experiment.optimizer.gradient_clipping or 0.0) if engine.zero_stage else 0.0
    # Copies between a GPU and pinned memory do not stop the process.
    offload = {"offload_optimizer": {"device": "cpu", "pin_memory": torch.cuda.is_available()}}
    return {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": micro_batch_size(batch_size, world_size, engine.accumulation_steps),
        "gradient_accumulation_steps": engine.accumulation_steps,
        "gradient_clipping": clipping,
        "prescale_gradients": False,
        "communication_data_type": "fp32",
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
        # Its timer waits for the GPU before and after every micro-batch, and nothing is printed.
        "timers": {"throughput": {"enabled": False}},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": engine.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "bf16" if sums_in_bfloat16(engine) else "fp32"},
        "zero_optimization": {
            "stage": engine.zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_param_persistence_threshold": min(_KEPT_WHOLE, num_parameters // 1000),
            "stage3_max_live_parameters": MAX_LIVE_PARAMETERS,
            "stage3_max_reuse_distance": 1_000_000_000,
            **(offload if engine.offload_optimizer else {}),
        },
    }
