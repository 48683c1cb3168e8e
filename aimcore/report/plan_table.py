"""The tables of ``aimcore plan``, and the same numbers as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import attrs
from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.engine.plan import FILLED, Cluster, Plan, StagePlan
from aimcore.experiment import Experiment, Study
from aimcore.report.cost_table import scaled

CONVENTIONS = (
    f"Memory: at the peak of a step on each GPU, of which {FILLED:.0%} are filled; attention by a fused kernel; "
    "without images that are loaded ahead. Sent: from each GPU per step, and the time for it over the slowest link if "
    "nothing is computed meanwhile. Days: FLOPs of the run / (GPUs x peak x utilisation)."
)
_ABSENT = "–"


def print_plans(study: Study, plans: Mapping[str, Plan], cluster: Cluster, console: Console) -> None:
    """Print the cluster, and two tables per experiment; experiments with equal plans share them."""
    console.print(f"{study.name} ({study.source})" if study.source else study.name, highlight=False)
    console.print(_described(cluster), highlight=False)
    by_name = {experiment.name: experiment for experiment in study.experiments}
    for names, plan in _alike(plans):
        console.print(_summary_table(names, by_name[names[0]], plan))
        console.print(_stage_table(plan))
        if not plan.fits:
            console.print(f"Nothing fits: {plan.alternative}.", highlight=False)
    console.print(CONVENTIONS, highlight=False)


def plain(study: Study, plans: Mapping[str, Plan], cluster: Cluster) -> dict[str, Any]:
    """Return all numbers as plain values; sizes are bytes."""
    return {
        "study": study.name,
        "cluster": {**attrs.asdict(cast(Any, cluster)), "world_size": cluster.world_size},
        "experiments": {name: _plain(plan) for name, plan in plans.items()},
    }


def _plain(plan: Plan) -> dict[str, Any]:
    cost = plan.cost
    return {
        "parameters": cost.parameters,
        "trained_parameters": cost.trained_parameters,
        "trunk_parameters": cost.trunk_parameters,
        "flops_per_image": cost.flops_per_image,
        "flops_per_step": plan.flops_per_step,
        "days": plan.days,
        "fits": plan.fits,
        "alternative": plan.alternative,
        "stages": [
            {"stage": stage.stage, **stage.state._asdict(), **_without_state(stage), "memory": stage.memory}
            for stage in plan.stages
        ],
    }


def _without_state(stage: StagePlan) -> dict[str, Any]:
    return {name: value for name, value in attrs.asdict(stage, recurse=False).items() if name != "state"}


def _described(cluster: Cluster) -> str:
    gpu = cluster.gpu
    peak, link, network = scaled(gpu.bf16_flops, "FLOP/s"), scaled(gpu.link, "B/s"), scaled(gpu.network, "B/s")
    return (
        f"{cluster.nodes} x {cluster.gpus_per_node} {gpu.name} = {cluster.world_size} GPUs; each "
        f"{gpu.memory / 1e9:.0f} GB, {peak} in bfloat16, {link} within a node, {network} between nodes "
        f"({gpu.source}); utilisation {cluster.utilisation:.0%}"
    )


def _alike(plans: Mapping[str, Plan]) -> list[tuple[list[str], Plan]]:
    groups: list[tuple[list[str], Plan]] = []
    for name, plan in plans.items():
        names = next((names for names, other in groups if other == plan), None)
        if names is None:
            groups.append(([name], plan))
        else:
            names.append(name)
    return groups


def _table(title: str = "") -> Table:
    return Table(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)


def _summary_table(names: list[str], experiment: Experiment, plan: Plan) -> Table:
    table = _table(", ".join(names))
    table.show_header = False
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    cost, engine = plan.cost, experiment.engine
    table.add_row("parameters", f"{cost.parameters:,}", f"{cost.trunk_parameters:,} in the trunk")
    if cost.trained_parameters < cost.parameters:
        table.add_row("  of which trained", f"{cost.trained_parameters:,}", "")
    images = f"{cost.num_images:,} images in {experiment.num_steps:,} steps"
    table.add_row("FLOPs per step", scaled(plan.flops_per_step, "FLOP"), images)
    table.add_row("FLOPs per run", scaled(cost.own_flops, "FLOP"), f"{engine.precision}; {cost.own_flops:.3g}")
    table.add_row("days", f"{plan.days:,.3g}", "")
    return table


def _stage_table(plan: Plan) -> Table:
    table = _table()
    table.add_column("per GPU")
    for stage in plan.stages:
        table.add_column(f"ZeRO {stage.stage}", justify="right")
    for label, value in _stage_rows():
        cells = [value(stage) for stage in plan.stages]
        if any(cell not in (_ABSENT, "0 B") for cell in cells):
            table.add_row(label, *cells)
    return table


def _stage_rows() -> Iterator[tuple[str, Callable[[StagePlan], str]]]:
    yield "weights", lambda stage: scaled(stage.state.weights, "B")
    yield "gradients", lambda stage: scaled(stage.state.gradients, "B")
    yield "optimiser", lambda stage: scaled(stage.state.optimizer, "B")
    yield "buffers", lambda stage: scaled(stage.buffers, "B")
    yield "casts of weights", lambda stage: scaled(stage.casts, "B")
    yield "gathered weights", lambda stage: scaled(stage.gathered, "B")
    yield "bucket of gradients", lambda stage: scaled(stage.bucket, "B")
    yield "activations per image", lambda stage: scaled(stage.activations_per_image, "B")
    yield "  gradients of a block", lambda stage: scaled(stage.block_per_image, "B")
    yield "micro-batch", lambda stage: _number(stage.micro_batch)
    yield "accumulation steps", lambda stage: _number(stage.accumulation_steps)
    yield "memory at the peak", lambda stage: _ABSENT if stage.memory is None else scaled(stage.memory, "B")
    yield "sent per step", lambda stage: _ABSENT if stage.sent is None else scaled(stage.sent, "B")
    yield "  seconds for it", lambda stage: _ABSENT if stage.sending_seconds is None else f"{stage.sending_seconds:.3g}"


def _number(value: int | None) -> str:
    return "none fits" if value is None else f"{value:,}"
