"""The budget of each experiment in a scaling study: size, samples and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from aimcore.engine.cost import costs_of
from aimcore.experiment import Study
from aimcore.running.summary import BudgetSummary


def budgets_of(study: Study) -> Mapping[str, BudgetSummary]:
    """Return sizes, samples and FLOPs of the experiments that ``study.scaling`` names.

    The samples and FLOPs of a branch include those of the run that it continues.
    """
    if study.scaling is None:
        return {}

    points = study.scaling.points
    costs = costs_of([experiment for experiment in study.experiments if experiment.name in points])
    return {
        name: BudgetSummary(
            trunk_parameters=cost.trunk_parameters,
            parameters=cost.parameters,
            samples=cost.num_images,
            flops=cost.flops_per_run,
        )
        for name, cost in costs.items()
    }
