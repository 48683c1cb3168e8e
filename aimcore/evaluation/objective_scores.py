"""Scores of an experiment's evaluations on its trained module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs

from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.results import Score
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.evaluation_data import OpenEvaluationData
from aimcore.evaluation.protocol_cards import evaluation_card
from aimcore.experiment import Experiment


@attrs.frozen
class Evaluated:
    """Results of the evaluations of an experiment."""

    scores: Mapping[str, Score] = attrs.field(factory=dict)
    """Scores by ``<title>/<score>``."""
    cards: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """Protocol card of each evaluation, by its title: plain values for a JSON file."""
    unread: Mapping[str, Collection[int]] = attrs.field(factory=dict)
    """Images that this process could not read: their indices in the source, by the source's field of ``Data``."""


def evaluate(experiment: Experiment, module: ObjectiveModule, data: OpenEvaluationData | None = None) -> Evaluated:
    """Measure every evaluation of ``experiment``, and return scores and protocol cards.

    Every process of a distributed run must call this, and all get the same results. ``module`` must not be partitioned:
    at ZeRO stage 3 give a copy with all parameters, because captions are generated outside of the module's forward, and
    stage 3 gathers parameters only within it. The module runs in evaluation mode, without gradients, in the
    experiment's precision; its modes are restored.

    Args:
        experiment: the experiment that was trained.
        module: the trained module.
        data: the experiment's data, if they are open already.
    """
    if not experiment.evaluations:
        return Evaluated()
    scores: dict[str, Score] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    with eval_mode(module, experiment.engine.precision) as device:
        data = data or OpenEvaluationData.of(experiment, device)
        for evaluation in experiment.evaluations:
            found = evaluation.scores(module, data)
            scores |= titled(evaluation, found)
            cards[evaluation.title] = evaluation_card(data, evaluation, found)
    return Evaluated(scores, cards, data.unread)


def titled(evaluation: Evaluation, scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return scores by their names in a summary."""
    return {f"{evaluation.title}/{name}": score for name, score in scores.items()}
