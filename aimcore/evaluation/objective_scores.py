"""Running an experiment's evaluations on its trained module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from aimcore.contracts.errors import Problem
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


def evaluation_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield, with their paths, why evaluations of ``experiment`` cannot be done; no source is opened."""
    titles = [evaluation.title for evaluation in experiment.evaluations]
    for number, evaluation in enumerate(experiment.evaluations):
        path = f"evaluations.{number}"
        if evaluation.title in titles[:number]:
            yield Problem(path, f"two evaluations are called {evaluation.title!r}: scores are kept by that name")
        yield from (Problem(path, text) for text in evaluation.problems_with(experiment.objective))


def evaluation_data_problems(material: OpenEvaluationData) -> Iterator[Problem]:
    """Yield why they cannot be done on this data."""
    for number, evaluation in enumerate(material.experiment.evaluations):
        yield from (Problem(f"evaluations.{number}", text) for text in evaluation.problems_with_data(material))


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
