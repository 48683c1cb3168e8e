"""What goes into training each experiment of a study of scaling."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from aimcore.experiment import Experiment, Study
from aimcore.report.summary import BudgetSummary


def budgets_of(study: Study) -> Mapping[str, BudgetSummary]:
    """Sizes, samples and FLOPs of the experiments that ``study.scaling`` names; of no others.

    They count from the very beginning: a branch has seen the samples of the run that it left, too. At native
    resolution the number of samples of a step differs, so there is no budget.
    """
    from aimcore.cost import Cost, cost_of

    points = () if study.scaling is None else study.scaling.points
    known: list[tuple[Experiment, Cost]] = []
    budgets = {}
    for experiment in (one for one in study.experiments if one.name in points):
        if experiment.data.native is not None:
            logger.warning("{}: no budget, as the samples of a step differ at native resolution", experiment.name)
            continue
        cost = next((cost for other, cost in known if _costs_the_same(experiment, other)), None) or cost_of(experiment)
        known.append((experiment, cost))
        samples = experiment.num_steps * experiment.data.batch_size
        budgets[experiment.name] = BudgetSummary(
            trunk_parameters=cost.trunk_parameters,
            parameters=cost.parameters,
            samples=samples,
            flops=cost.flops_per_image * samples,
        )
    return budgets


def _costs_the_same(one: Experiment, other: Experiment) -> bool:
    """Whether a sample costs the same in both."""
    return all(
        getattr(one, field) == getattr(other, field)
        for field in ("trunk", "objective", "data", "engine", "frozen", "seed")
    )
