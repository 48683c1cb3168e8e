"""The tables of ``--dry-run``: the cost of each experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.engine.cost import Cost
from aimcore.experiment import Experiment, NativeResolution, Study

CONVENTIONS = (
    "FLOPs: a multiply-add counts as two; products, convolutions and attention, forward and backward; a causal mask is "
    "not discounted. Memory: per process; all activations of autograd, without fused attention. "
    "Data: not opened; a run logs what its sources leave out."
)


def print_costs(study: Study, costs: Mapping[str, Cost], world_size: int, console: Console) -> None:
    """Print one table per experiment; experiments that cost the same share one."""
    console.print(f"{study.name} ({study.source})" if study.source else study.name, highlight=False)
    for experiments in _alike(study.experiments, costs):
        console.print(cost_table(experiments, costs[experiments[0].name], world_size))
    if len(costs) > 1:
        total = sum(cost.own_flops for cost in costs.values())
        console.print(f"All {len(costs)} experiments: {scaled(total, 'FLOP')} ({total:.3g}).", highlight=False)
    console.print(CONVENTIONS, highlight=False)


def cost_table(experiments: Sequence[Experiment], cost: Cost, world_size: int) -> Table:
    """Return the common cost of ``experiments``."""
    first = experiments[0]
    title = ", ".join(experiment.name for experiment in experiments)
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for row in _rows(first, cost, world_size):
        table.add_row(*row)
    return table


def _rows(experiment: Experiment, cost: Cost, world_size: int) -> Iterator[tuple[str, str, str]]:
    native, engine, schedule = experiment.data.native, experiment.engine, experiment.schedule
    step = f"{experiment.data.batch_size:,} images" if native is None else f"up to {native.patches_per_step:,} patches"
    yield "parameters, trunk", f"{cost.trunk_parameters:,}", experiment.trunk.name
    yield "parameters, other", f"{cost.objective_parameters:,}", f"{experiment.objective.name}: heads and the like"
    yield "parameters, total", f"{cost.parameters:,}", ""
    if experiment.num_steps == 0:
        yield "training", "none", "a frozen baseline: it is only measured"
        yield "FLOPs per image", scaled(cost.flops_per_image, "FLOP"), f"{cost.patches_per_image} patches, forward"
        yield "memory, weights", scaled(cost.state.weights, "B"), "per process, in float32"
        return
    if cost.trained_parameters < cost.parameters:
        share, of_trunk = (
            cost.trained_parameters / cost.parameters,
            cost.trained_trunk_parameters / cost.trunk_parameters,
        )
        text = f"{share:.2%} of all, {of_trunk:.2%} of the trunk's"
        yield "  of which trained", f"{cost.trained_parameters:,}", text
    yield "training", f"{experiment.num_steps:,} steps", f"of {step}; {cost.num_images:,} images in all"
    yield "warm-up", f"{schedule.warmup_steps:,} steps", f"peak learning rate {experiment.optimizer.peak_lr:g}"
    yield "then", *_decay(experiment)
    if schedule.cooldown_steps:
        yield "cooldown", f"{schedule.cooldown_steps:,} steps", f"linearly to {schedule.cooldown_lr:g}"
    yield "FLOPs per image", scaled(cost.flops_per_image, "FLOP"), f"{cost.patches_per_image} patches{_mean(native)}"
    yield "  of which forward", scaled(cost.forward_flops_per_image, "FLOP"), ""
    if cost.recomputed_flops_per_image:
        yield "  recomputed", scaled(cost.recomputed_flops_per_image, "FLOP"), "in addition, in the backward pass"
    yield "FLOPs per run", scaled(cost.flops_per_run, "FLOP"), f"{cost.flops_per_run:.3g}"
    if experiment.branch is not None:
        text = f"after step {experiment.branch.step:,} of {experiment.branch.experiment}"
        yield "  of which its own", scaled(cost.own_flops, "FLOP"), text
    zero = f"ZeRO stage {engine.zero_stage}, {engine.precision}, {world_size} process{'es' if world_size > 1 else ''}"
    yield "memory, weights", scaled(cost.state.weights, "B"), zero
    yield "memory, gradients", scaled(cost.state.gradients, "B"), ""
    yield "memory, optimiser", scaled(cost.state.optimizer, "B"), "assumes two moments per trained weight, as in Adam"
    if cost.buffer_bytes:
        yield "memory, buffers", scaled(cost.buffer_bytes, "B"), "such as the weights of a teacher; never partitioned"
    activations = cost.activation_bytes_per_image
    of_what = "image" if native is None else "image of the largest area"
    yield "memory, activations", scaled(activations, "B"), f"per {of_what}; micro-batch of {cost.micro_batch:,}"
    yield "memory, total", scaled(cost.memory, "B"), "per process; fewer per micro-batch: accumulation, processes"


def _mean(native: NativeResolution | None) -> str:
    return "" if native is None else " in the mean, padding included"


def _decay(experiment: Experiment) -> tuple[str, str]:
    """Describe how long the rate follows its shape, and where it ends."""
    schedule, peak = experiment.schedule, experiment.optimizer.peak_lr
    steps = f"{experiment.num_steps - schedule.warmup_steps - schedule.cooldown_steps:,} steps"
    if schedule.decay == "constant":
        return steps, "constant"
    horizon = schedule.horizon(experiment.num_steps)
    end = schedule.shape_rate(horizon, num_steps=experiment.num_steps, peak_lr=peak)
    cut = f", at step {horizon:,}" if horizon != experiment.num_steps or schedule.cooldown_steps else ""
    return steps, f"{schedule.decay.replace('_', '-')} to {end:g}{cut}"


def _alike(experiments: Sequence[Experiment], costs: Mapping[str, Cost]) -> list[list[Experiment]]:
    """Group experiments whose tables are equal."""
    groups: dict[tuple[tuple[str, str, str], ...], list[Experiment]] = {}
    for experiment in experiments:
        groups.setdefault(tuple(_rows(experiment, costs[experiment.name], 1)), []).append(experiment)
    return list(groups.values())


def scaled(value: float, unit: str) -> str:
    """Format ``value`` with a decimal prefix and three digits: 1.38 TFLOP."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:,.3g} Z{unit}"
