"""What the processes of a run send to each other, and the memory for it, by ZeRO stage."""

from __future__ import annotations

from aimcore.engine.cost import Cost
from aimcore.engine.deepspeed_config import MAX_LIVE_PARAMETERS, bucket_size
from aimcore.experiment import Engine

_REDUCED_BYTES = 4
"""Bytes of a value of the gradient that is sent: gradients are reduced in float32 at every precision."""


def bytes_sent(cost: Cost, engine: Engine, world_size: int, accumulation_steps: int) -> int:
    """Return the bytes that each process sends per step (ZeRO: arXiv:1910.02054, section 7).

    In a ring, a reduce-scatter or an all-gather of n bytes sends n (W - 1) / W bytes from each of W processes. With P
    weights and their gradients:

    - stage 0: an all-reduce of the gradients, which is a reduce-scatter and an all-gather: 2 P values;
    - stages 1 and 2: a reduce-scatter of the gradients and an all-gather of the new weights: 2 P values. At stage 2,
      gradients are reduced after each micro-batch;
    - stage 3: per micro-batch, an all-gather of the weights for the forward and one for the backward pass, and a
      reduce-scatter of the gradients: 3 P values. DeepSpeed keeps up to 10^9 gathered weights, so small models send
      less. Recomputation of a block directly precedes its backward pass, and uses the same gathered weights.
    """
    gradients = _REDUCED_BYTES * cost.trained_parameters
    weight_bytes = _weight_bytes(engine)
    if engine.zero_stage == 0:
        sent = 2 * gradients
    elif engine.zero_stage < 3:
        reductions = accumulation_steps if engine.zero_stage == 2 else 1
        sent = reductions * gradients + weight_bytes * cost.trained_parameters
    else:
        sent = accumulation_steps * (gradients + 2 * weight_bytes * cost.parameters)
    return sent * (world_size - 1) // world_size


def bucket_bytes(cost: Cost, engine: Engine, world_size: int) -> int:
    """Return the bytes of the buffers in which DeepSpeed collects gradients that are sent together.

    With bfloat16 weights, a float32 copy of the bucket is reduced. At stage 0 a process alone has nothing to send.
    """
    trained = min(bucket_size(cost.parameters), cost.trained_parameters)
    if engine.zero_stage == 0:
        return _REDUCED_BYTES * trained if world_size > 1 else 0
    weight_bytes = _weight_bytes(engine)
    copied = _REDUCED_BYTES * trained if weight_bytes != _REDUCED_BYTES else 0
    return weight_bytes * bucket_size(cost.parameters) + copied


def gathered_bytes(cost: Cost, engine: Engine, world_size: int) -> int:
    """Return the bytes of the weights that a process gathers at a time at stage 3, where it holds only its part."""
    if engine.zero_stage < 3 or world_size == 1:
        return 0
    return _weight_bytes(engine) * min(cost.parameters, MAX_LIVE_PARAMETERS)


def _weight_bytes(engine: Engine) -> int:
    return 2 if engine.precision == "bf16" else 4
