"""The cost of a run, before it runs: parameters, FLOPs and memory, counted on the meta device.

The experiment's trunk and objective are built without storage and run one step forward and backward, so the counts
reflect all its components.

Conventions: one multiply-add is two FLOPs; matrix products, convolutions and attention are counted, element-wise
operations are not. Attention is counted in full: a causal mask does not halve it. What is recomputed is counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from aimcore.contracts.features import Reading
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.data.native import NativeSteps
from aimcore.engine.counted_step import NUM_IMAGES, counted_step, held_bytes, meta_batch
from aimcore.engine.deepspeed_config import sums_in_bfloat16
from aimcore.engine.freezing import freeze
from aimcore.engine.module_building import module_on_meta
from aimcore.engine.parameter_counts import ParameterCounts
from aimcore.engine.recomputation import recompute_activations
from aimcore.experiment import Engine, Experiment


class StateMemory(NamedTuple):
    """Bytes that one process holds throughout a run."""

    weights: int
    gradients: int
    optimizer: int
    """Adam's two moments, for any optimizer, and the float32 master weights if the engine has them."""

    @property
    def total(self) -> int:
        """Total bytes of weights, gradients and optimiser state."""
        return self.weights + self.gradients + self.optimizer


@attrs.frozen(kw_only=True)
class Cost:
    """The cost of one experiment."""

    trunk_parameters: int
    objective_parameters: int
    """Parameters outside of the trunk: heads, decoders, towers."""
    trained_trunk_parameters: int
    trained_parameters: int
    """Parameters that are trained, in the trunk and outside of it."""
    flops_per_image: int
    """FLOPs forward and backward for one image: the mean over prefix lengths, and at native resolution over images."""
    forward_flops_per_image: int
    recomputed_flops_per_image: int = 0
    """FLOPs that the backward pass makes a second time, not included in the others: of blocks with
    ``Engine.checkpoint_activations``, and of logits over large vocabularies."""
    flops_per_run: int
    """FLOPs of the whole training; for a branch, including the run that it continues. See :attr:`own_flops`."""
    own_share: float = 1.0
    """Fraction of the steps that the run itself makes: a branch continues another run."""
    num_images: int
    """Number of training images, where each image counts once per epoch."""
    patches_per_image: int
    """Patches per image; at native resolution the mean, including padding: steps with large areas have fewer images."""
    state: StateMemory
    buffer_bytes: int = 0
    """Buffers, such as the weights of a teacher: whole on every process, and float32 at every precision."""
    activation_bytes_per_image: int
    """Bytes that are held for the backward pass, per image of a micro-batch. At native resolution, this and
    ``micro_batch`` are those of the largest area."""
    block_bytes_per_image: int = 0
    """Of these, the bytes of the block with the most. Its backward pass needs about as much for gradients."""
    fixed_activation_bytes: int = 0
    """Bytes held for the backward pass whatever the number of images: under autocast, weights cast to bfloat16."""
    micro_batch: int
    """Images per process and backward pass."""

    @property
    def parameters(self) -> int:
        """Number of all parameters, trained and frozen."""
        return self.trunk_parameters + self.objective_parameters

    @property
    def own_flops(self) -> float:
        """FLOPs of the steps that the run itself makes."""
        return self.own_share * self.flops_per_run

    @property
    def memory(self) -> int:
        """Bytes that one process needs at the end of a forward pass."""
        fixed = self.state.total + self.buffer_bytes + self.fixed_activation_bytes
        return fixed + self.micro_batch * self.activation_bytes_per_image


def cost_of(experiment: Experiment, world_size: int = 1, *, fused_attention: bool = False) -> Cost:
    """Count the cost of training ``experiment`` on ``world_size`` processes, without data and weights.

    Args:
        experiment: the experiment.
        world_size: number of processes.
        fused_attention: whether activations are those of attention kernels that hold no probabilities, as on GPUs.

    Raises:
        InvalidValue: it has more parameters than any machine holds.
    """
    module = module_on_meta(experiment)
    if experiment.num_steps == 0:
        return _cost_of_reading(experiment, module)
    freeze(module, experiment.frozen)
    buffers = sum(buffer.nbytes for buffer in module.buffers())
    if experiment.engine.precision == "bf16":
        module.to(torch.bfloat16)
    number = ParameterCounts.of(module)
    seen = _seen(experiment)
    held = None
    if fused_attention or experiment.engine.checkpoint_activations:
        held = held_bytes(experiment, module, seen.grids[-1], fused=fused_attention)
        recompute_activations(module, experiment)
    steps = [counted_step(experiment, module, grid) for grid in seen.grids]
    if held is None:
        held = held_bytes(experiment, module, seen.grids[-1], steps[-1].held)
    forward, step, again = (_run_total(seen, one) for one in zip(*(one[:3] for one in steps), strict=True))
    return Cost(
        trunk_parameters=number.trunk,
        objective_parameters=number.other,
        trained_trunk_parameters=number.trunk_trained,
        trained_parameters=number.trained,
        flops_per_image=step // (NUM_IMAGES * seen.num_images),
        forward_flops_per_image=forward // (NUM_IMAGES * seen.num_images),
        recomputed_flops_per_image=again // (NUM_IMAGES * seen.num_images),
        flops_per_run=step // NUM_IMAGES,
        own_share=_own_share(experiment),
        num_images=seen.num_images,
        patches_per_image=seen.num_patches // seen.num_images,
        state=state_memory(number.total, experiment.engine, world_size, num_trained=number.trained),
        buffer_bytes=buffers,
        activation_bytes_per_image=held.per_image,
        block_bytes_per_image=held.block_per_image,
        fixed_activation_bytes=held.fixed,
        micro_batch=max(1, seen.batch_size // (world_size * experiment.engine.accumulation_steps)),
    )


def _cost_of_reading(experiment: Experiment, module: ObjectiveModule) -> Cost:
    """Return the cost of an experiment that trains nothing: its trunk reads images forward, without gradients."""
    number = ParameterCounts.of(module)
    side = experiment.data.image_size // experiment.trunk.patch_size
    images = meta_batch(experiment, PatchGrid(side, side), NUM_IMAGES, module.trunk.num_channels).images
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.trunk(images, Reading())
    per_image = counter.get_total_flops() // NUM_IMAGES
    return Cost(
        trunk_parameters=number.trunk,
        objective_parameters=number.other,
        trained_trunk_parameters=0,
        trained_parameters=0,
        flops_per_image=per_image,
        forward_flops_per_image=per_image,
        flops_per_run=0,
        num_images=0,
        patches_per_image=side**2,
        state=StateMemory(weights=4 * number.total, gradients=0, optimizer=0),
        activation_bytes_per_image=0,
        micro_batch=1,
    )


def costs_of(
    experiments: Sequence[Experiment], world_size: int = 1, *, fused_attention: bool = False
) -> dict[str, Cost]:
    """Return :func:`cost_of` for each experiment, by name; experiments that differ only in length are counted once."""
    known: list[tuple[Experiment, Cost]] = []
    for experiment in experiments:
        alike = next((pair for pair in known if _differ_in_length_alone(experiment, pair[0])), None)
        if alike is None:
            cost = cost_of(experiment, world_size, fused_attention=fused_attention)
        else:
            cost = _of_length(experiment, *alike)
        known.append((experiment, cost))
    return {experiment.name: cost for experiment, cost in known}


def _differ_in_length_alone(one: Experiment, other: Experiment) -> bool:
    """Whether an image costs the same in both; at native resolution that depends on the drawn areas."""
    fields = ("trunk", "objective", "data", "engine", "frozen", "seed")
    trains = one.num_steps > 0 and other.num_steps > 0
    return trains and one.data.native is None and all(getattr(one, field) == getattr(other, field) for field in fields)


def _of_length(experiment: Experiment, other: Experiment, cost: Cost) -> Cost:
    """Return the cost of ``experiment``, given the ``cost`` of ``other``, which differs only in length."""
    num_images = experiment.data.batch_size * experiment.num_steps
    flops = cost.flops_per_run * experiment.num_steps // other.num_steps
    return attrs.evolve(cost, num_images=num_images, flops_per_run=flops, own_share=_own_share(experiment))


def _own_share(experiment: Experiment) -> float:
    before = 0 if experiment.branch is None else experiment.branch.step
    return 1 - before / experiment.num_steps


def state_memory(
    num_parameters: int, engine: Engine, world_size: int, *, num_trained: int | None = None
) -> StateMemory:
    """Return bytes of weights, gradients and optimiser state per process (ZeRO: arXiv:1910.02054, section 5).

    Stage 1 partitions the optimiser state over the processes, stage 2 also the gradients, stage 3 also the weights.
    From stage 1 on, and in bf16, DeepSpeed updates its own float32 copy of the weights. Gradients are added in float32,
    except in bf16 at stage 1. Of ``num_parameters``, ``num_trained`` (by default all) have gradients and optimiser
    state.
    """
    trained = num_parameters if num_trained is None else num_trained
    bytes_each = 2 if engine.precision == "bf16" else 4
    optimizer_bytes_each = 8 if engine.zero_stage == 0 else 12

    def share(number: int, bytes_per_parameter: int, from_stage: int) -> int:
        parts = world_size if engine.zero_stage >= from_stage else 1
        return math.ceil(number * bytes_per_parameter / parts)

    return StateMemory(
        weights=share(num_parameters, bytes_each, from_stage=3),
        gradients=share(trained, 2 if sums_in_bfloat16(engine) else 4, from_stage=2),
        optimizer=share(trained, optimizer_bytes_each, from_stage=1),
    )


class _Seen(NamedTuple):
    """The numbers of images and patches of a run."""

    grids: tuple[PatchGrid, ...]
    """Grids for which the cost is counted, the largest last: the only grid, or three areas."""
    patches_S: npt.NDArray[np.int64]
    """Patches per image, of each step or of all together."""
    num_images_S: npt.NDArray[np.int64]
    batch_size: int
    """Images of a step with the most patches per image."""

    @property
    def num_images(self) -> int:
        """Of the whole run."""
        return int(self.num_images_S.sum())

    @property
    def num_patches(self) -> int:
        """Of the whole run."""
        return int((self.patches_S * self.num_images_S).sum())


def _seen(experiment: Experiment) -> _Seen:
    data = experiment.data
    if data.native is None:
        side = data.image_size // experiment.trunk.patch_size
        images_S, patches_S = np.array([data.batch_size * experiment.num_steps]), np.array([side**2])
        return _Seen((PatchGrid(side, side),), patches_S, images_S, data.batch_size)
    steps = NativeSteps.of(data.native, experiment.seed, experiment.num_steps)
    low, high = int(steps.area_S.min()), int(steps.area_S.max())
    counted = tuple(PatchGrid(1, area) for area in sorted({low, (low + high) // 2, high}))
    return _Seen(counted, steps.area_S, steps.num_images_S, int(steps.num_images_S.min()))


def _run_total(seen: _Seen, flops: Sequence[int]) -> int:
    """Return FLOPs of all images, from those of ``seen.grids``: they are a quadratic function of the patches."""
    if len(flops) == 1:
        return flops[0] * seen.num_images
    areas = [grid.num_patches for grid in seen.grids]
    per_image_S = np.polyval(np.polyfit(areas, flops, len(areas) - 1), seen.patches_S)
    return round(float((per_image_S * seen.num_images_S).sum()))
