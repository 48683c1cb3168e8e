"""An experiment's evaluations, run on what the engine has trained."""

from __future__ import annotations

from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine import TrainingEngine, build_module
from aimcore.evaluation.objective_scores import Evaluated, evaluate
from aimcore.experiment import Experiment
from aimcore.running.summary import EvaluationSummary


def evaluate_trained(experiment: Experiment, engine: TrainingEngine) -> Evaluated:
    """The scores of ``experiment`` on the module of ``engine``; every process calls it, and gets them all."""
    return evaluate(experiment, whole_module(experiment, engine))


def whole_module(experiment: Experiment, engine: TrainingEngine) -> ObjectiveModule:
    """The trained module with all its parameters: the engine's own, or at ZeRO stage 3 a copy that is not partitioned.

    Evaluations use parameters outside of a module's own forward, to write captions a token at a time, and stage 3 has
    them there only. The copy is float32, whatever the weights were trained in, and lies beside the engine in memory.
    """
    if experiment.engine.zero_stage < 3:
        return engine.module
    module = build_module(experiment)
    module.load_state_dict(engine.full_state_dict())
    return module.to(engine.world.device)


def summaries_of(evaluated: Evaluated | None) -> dict[str, EvaluationSummary] | None:
    """Scores as the summary holds them; None where there are none."""
    if evaluated is None or not evaluated.scores:
        return None
    return {
        name: EvaluationSummary(value=score.value, num=score.num, chance=score.chance, ci95=score.ci95)
        for name, score in evaluated.scores.items()
    }
