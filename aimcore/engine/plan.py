"""A plan of a run on many GPUs: memory by ZeRO stage, the largest micro-batch, communication and time.

The plan reads the cost of the experiment (:mod:`aimcore.engine.cost`) and the sizes that the engine gives to DeepSpeed.
It runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import attrs

from aimcore.contracts import limits
from aimcore.contracts.component import Checked, at_least, positive, settings
from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.data.sampling import micro_batch_size
from aimcore.engine.cost import Cost, StateMemory, cost_of, costs_of, state_memory
from aimcore.engine.gpus import GPU, GPUS
from aimcore.engine.zero_traffic import bucket_bytes, bytes_sent, gathered_bytes
from aimcore.experiment import Engine, Experiment

T = TypeVar("T")
Stage = Literal[0, 1, 2, 3]
STAGES: tuple[Stage, ...] = (0, 1, 2, 3)
FILLED = 0.95
"""Fraction of a GPU's memory that a plan fills, because allocators leave gaps."""
_SECONDS_PER_DAY = 86_400


@settings
class Cluster(Checked):
    """The machines of a plan."""

    gpu: GPU
    nodes: int = 1
    gpus_per_node: int = 8
    utilisation: float = 0.4
    """Fraction of the GPUs' peak that the run achieves on average, waiting for data and other GPUs included."""

    def problems(self) -> Iterable[Problem]:
        """Yield numbers that no cluster has."""
        yield from at_least("nodes", self.nodes, 1, limits.PROCESSES)
        yield from at_least("gpus_per_node", self.gpus_per_node, 1, limits.PROCESSES)
        yield from positive("utilisation", self.utilisation, 1)

    @property
    def world_size(self) -> int:
        """Number of processes, one per GPU."""
        return self.nodes * self.gpus_per_node

    @property
    def bandwidth(self) -> float:
        """Bytes per second that each GPU sends in a collective of all GPUs: that of the slowest link."""
        return self.gpu.link if self.nodes == 1 else min(self.gpu.link, self.gpu.network)


@attrs.frozen(kw_only=True)
class StagePlan:
    """Memory and communication of one process at one ZeRO stage. Sizes are bytes."""

    stage: Stage
    state: StateMemory
    buffers: int
    """Buffers of the module, such as a teacher."""
    casts: int
    """What the backward pass needs whatever the micro-batch is: under autocast, weights cast to bfloat16."""
    gathered: int
    """Whole weights that are gathered at a time at stage 3."""
    bucket: int
    """Buffers for gradients that are sent together."""
    activations_per_image: int
    block_per_image: int
    """Gradients of the activations of one block: as much as the block with the most holds."""
    micro_batch: int | None = None
    """The largest number of images per process and backward pass that fits; None if no possible one does."""
    accumulation_steps: int | None = None
    """Micro-batches per step that follow from it."""
    sent: int | None = None
    """Bytes that a process sends per step."""
    sending_seconds: float | None = None
    """Time for that over the slowest link, if nothing is computed meanwhile."""

    @property
    def memory(self) -> int | None:
        """Bytes at the peak of a step with the micro-batch; None if nothing fits."""
        if self.micro_batch is None or self.accumulation_steps is None:
            return None
        return self.peak(self.micro_batch, self.accumulation_steps)

    def peak(self, micro_batch: int, accumulation_steps: int) -> int:
        """Return bytes at the peak of a step.

        The backward pass frees activations while it makes gradients. So a step of one micro-batch needs memory for the
        larger of both, unless gradients have memory of their own: at stage 3 always, and elsewhere from the second
        micro-batch on. In addition, the backward pass of a block needs memory for gradients of its activations.
        """
        held = self.state.weights + self.state.optimizer + self.buffers + self.casts + self.gathered
        held += micro_batch * self.block_per_image
        gradients, activations = self.state.gradients + self.bucket, micro_batch * self.activations_per_image
        if self.stage == 3 or accumulation_steps > 1:
            return held + gradients + activations
        return held + max(gradients, activations)


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of one experiment."""

    cost: Cost
    flops_per_step: float
    """Mean FLOPs of a step, over all processes, with recomputation."""
    days: float
    """Days of the steps that the run itself makes, at the cluster's utilisation."""
    stages: tuple[StagePlan, ...]
    """The stages that the experiment's precision and optimizer allow."""
    alternative: str = ""
    """If nothing fits at any stage: what would, in words."""

    @property
    def fits(self) -> bool:
        """Whether a micro-batch fits at some stage."""
        return any(stage.micro_batch is not None for stage in self.stages)


def plan_cost(experiment: Experiment) -> Cost:
    """Return the cost that plans of ``experiment`` read: of whole steps on one process, with fused attention."""
    return cost_of(_in_whole_steps(experiment), fused_attention=True)


def _in_whole_steps(experiment: Experiment) -> Experiment:
    return _changed(experiment, engine=_changed(experiment.engine, accumulation_steps=1))


def _changed(value: T, **fields: Any) -> T:
    """Return a copy of a component or of settings with other fields."""
    return cast(T, attrs.evolve(cast(Any, value), **fields))


def plan_of(experiment: Experiment, cluster: Cluster, cost: Cost | None = None) -> Plan:
    """Plan the training of ``experiment`` on ``cluster``. Its own ZeRO stage and accumulation steps do not matter.

    Args:
        experiment: the experiment.
        cluster: the machines.
        cost: :func:`plan_cost` of the experiment, if it is known.

    Raises:
        InvalidValue: it trains nothing, or its batch does not divide over the GPUs.
    """
    possible = accumulations(experiment, cluster.world_size)
    cost = plan_cost(experiment) if cost is None else cost
    rate = cluster.world_size * cluster.gpu.peak(experiment.engine.precision) * cluster.utilisation
    with_recomputation = 1 + cost.recomputed_flops_per_image / cost.flops_per_image
    plan = Plan(
        cost=cost,
        flops_per_step=with_recomputation * cost.flops_per_run / experiment.num_steps,
        days=with_recomputation * cost.own_flops / rate / _SECONDS_PER_DAY,
        stages=_stages(experiment, cluster, cost, possible),
    )
    return plan if plan.fits else attrs.evolve(plan, alternative=_alternative(experiment, cluster, cost))


def plans_of(experiments: Sequence[Experiment], cluster: Cluster) -> dict[str, Plan]:
    """Return :func:`plan_of` for each experiment that trains, by name.

    Raises:
        InvalidValue: no experiment trains, or a batch does not divide over the GPUs; nothing is counted then.
    """
    trained = [experiment for experiment in experiments if experiment.num_steps]
    for experiment in trained or experiments:
        accumulations(experiment, cluster.world_size)
    costs = costs_of([_in_whole_steps(experiment) for experiment in trained], fused_attention=True)
    return {experiment.name: plan_of(experiment, cluster, costs[experiment.name]) for experiment in trained}


def accumulations(experiment: Experiment, world_size: int) -> tuple[int, ...]:
    """Return the possible numbers of micro-batches per step, in ascending order.

    Raises:
        InvalidValue: the experiment trains nothing, or its batch does not divide over ``world_size`` processes.
    """
    data = experiment.data
    if experiment.num_steps == 0:
        raise InvalidValue(f"Experiment {experiment.name!r}", [("num_steps", "is 0: there is no training to plan")])
    images = data.batch_size if data.native is None else data.native.images_multiple_of
    try:
        per_process = micro_batch_size(images, world_size, 1)
    except InvalidValue as error:
        path = "data.batch_size" if data.native is None else "data.native.images_multiple_of"
        raise InvalidValue(f"Experiment {experiment.name!r}", [(path, error.problems[0][1])]) from None
    most = per_process if experiment.objective.is_separable else 1
    return tuple(number for number in range(1, most + 1) if per_process % number == 0)


def _stages(experiment: Experiment, cluster: Cluster, cost: Cost, possible: Iterable[int]) -> tuple[StagePlan, ...]:
    return tuple(
        _filled(stage_plan(cost, engine, cluster.world_size), cost, engine, cluster, possible)
        for engine in _engines(experiment)
    )


def _alternative(experiment: Experiment, cluster: Cluster, cost: Cost) -> str:
    """Describe what would fit: activation checkpointing, more nodes, or GPUs with more memory."""
    larger = [gpu for gpu in GPUS.values() if gpu.memory > cluster.gpu.memory]
    doubled = [cluster.nodes * 2**power for power in range(1, 11) if cluster.nodes * 2**power <= limits.PROCESSES]
    variants = {
        "more nodes": ((f"{nodes} nodes", _changed(cluster, nodes=nodes)) for nodes in doubled),
        "other GPUs": ((gpu.name, _changed(cluster, gpu=gpu)) for gpu in sorted(larger, key=lambda gpu: gpu.memory)),
    }
    fitting = [_first_fitting(experiment, kind, cost) for kind in variants.values()]
    found = [text for text in (_with_recomputation(experiment, cluster), *fitting) if text]
    number = accumulations(experiment, cluster.world_size)[-1]
    micro_batch = -(-cost.micro_batch // (cluster.world_size * number))
    need = min(stage.peak(micro_batch, number) for stage in _stages(experiment, cluster, cost, ()))
    return (
        f"the smallest micro-batch, {micro_batch}, needs {need / 1e9:,.3g} GB per GPU; what would fit: "
        f"{' or '.join(found) if found else 'no number of nodes and no known GPU'}"
    )


def _with_recomputation(experiment: Experiment, cluster: Cluster) -> str:
    """Describe whether activation checkpointing alone is enough; empty if it is not."""
    if experiment.engine.checkpoint_activations:
        return ""
    variant = _changed(experiment, engine=_changed(experiment.engine, checkpoint_activations=True))
    try:
        cost = plan_cost(variant)
    except InvalidValue:  # the trunk names no blocks
        return ""
    return _first_fitting(variant, [("engine.checkpoint_activations=true", cluster)], cost)


def _first_fitting(experiment: Experiment, variants: Iterable[tuple[str, Cluster]], cost: Cost) -> str:
    """Describe the first variant of a cluster that fits; empty if none does."""
    for name, cluster in variants:
        try:
            possible = accumulations(experiment, cluster.world_size)
        except InvalidValue:  # the batch does not divide over so many GPUs
            continue
        for stage in _stages(experiment, cluster, cost, possible):
            if stage.micro_batch is not None:
                return f"{name} at ZeRO stage {stage.stage}"
    return ""


def _engines(experiment: Experiment) -> Iterator[Engine]:
    """Yield the engine's settings at each stage that is allowed."""
    engine = experiment.engine
    for stage in STAGES:
        is_wrong = stage == 0 and (engine.precision == "bf16" or engine.offload_optimizer)  # see Engine.problems
        if not is_wrong and (stage == 0 or experiment.optimizer.elementwise):
            yield _changed(engine, zero_stage=stage)


def stage_plan(cost: Cost, engine: Engine, world_size: int) -> StagePlan:
    """Return the memory of the GPU of one of ``world_size`` processes, without a micro-batch."""
    state = state_memory(cost.parameters, engine, world_size, num_trained=cost.trained_parameters)
    return StagePlan(
        stage=engine.zero_stage,
        state=state._replace(optimizer=0) if engine.offload_optimizer else state,
        buffers=cost.buffer_bytes,
        # At stage 3, DeepSpeed's linear layers cast weights again in the backward pass.
        casts=cost.fixed_activation_bytes if engine.zero_stage < 3 else 0,
        gathered=gathered_bytes(cost, engine, world_size),
        bucket=bucket_bytes(cost, engine, world_size),
        activations_per_image=cost.activation_bytes_per_image,
        block_per_image=cost.block_bytes_per_image,
    )


def _filled(plan: StagePlan, cost: Cost, engine: Engine, cluster: Cluster, possible: Iterable[int]) -> StagePlan:
    """Return the plan with the largest micro-batch that fits, if one does."""
    for number in possible:
        micro_batch = -(-cost.micro_batch // (cluster.world_size * number))
        if plan.peak(micro_batch, number) <= FILLED * cluster.gpu.memory:
            sent = bytes_sent(cost, engine, cluster.world_size, number)
            return attrs.evolve(
                plan,
                micro_batch=micro_batch,
                accumulation_steps=number,
                sent=sent,
                sending_seconds=sent / cluster.bandwidth,
            )
    return plan
