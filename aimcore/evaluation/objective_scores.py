"""Running an experiment's evaluations on its trained module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs

from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.results import Score
from aimcore.evaluation.eval_mode import frozen
from aimcore.evaluation.evaluation_data import OpenEvaluationData
from aimcore.evaluation.protocol_cards import evaluation_card
from aimcore.experiment import Experiment


@attrs.frozen
class Evaluated:
    """What the evaluations of an experiment gave."""

    scores: Mapping[str, Score] = attrs.field(factory=dict)
    """By ``<title>/<score>``."""
    cards: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """How each was measured, by its title: plain values for a JSON file."""
    unread: Mapping[str, Collection[int]] = attrs.field(factory=dict)
    """Images that this process could not read: places in the source, by its field of the experiment's data."""


def evaluate(experiment: Experiment, module: ObjectiveModule, material: OpenEvaluationData | None = None) -> Evaluated:
    """Every score of every evaluation of ``experiment``, and the protocol card of each.

    Every process of a distributed run must call it, and all get the same. ``module`` is whole: at ZeRO stage 3 give a
    copy with all parameters, because captions are written with parameters outside of the forwards that stage 3 knows.
    It is held in evaluation mode, without gradients, in the experiment's precision, and left as it was.

    Args:
        experiment: what was trained.
        module: the trained module.
        material: the experiment's data where that is open already.
    """
    if not experiment.evaluations:
        return Evaluated()
    scores: dict[str, Score] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    with frozen(module, experiment.engine.precision) as device:
        material = material or OpenEvaluationData.of(experiment, device)
        for evaluation in experiment.evaluations:
            found = evaluation.scores(module, material)
            scores |= titled(evaluation, found)
            cards[evaluation.title] = evaluation_card(material, evaluation, found)
    return Evaluated(scores, cards, material.unread)


def titled(evaluation: Evaluation, scores: Mapping[str, Score]) -> dict[str, Score]:
    """Scores by the names that they have in a summary."""
    return {f"{evaluation.title}/{name}": score for name, score in scores.items()}
