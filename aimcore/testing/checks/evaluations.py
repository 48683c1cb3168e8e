"""Evaluations: shares of what was judged, the same every time, of a module that is left as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import attrs

from aimcore.contracts.assembly import assembled
from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.results import Score
from aimcore.contracts.sources import Source
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.evaluation_data import OpenEvaluationData
from aimcore.experiment import Data, Experiment
from aimcore.testing.caption_stand_in import StandInCaptioned, StandInSpeaker
from aimcore.testing.checks import Check
from aimcore.testing.requirements import FAULTS, explained, require, seeded
from aimcore.testing.small_parts import StandInTrunk


def check_scores_are_shares_of_something(evaluation: Evaluation) -> None:
    """Values lie in [0, 1] and within their intervals, of at least one thing that was judged; chance is a share too."""
    material = _fitting(evaluation)
    scores = _scores(evaluation, _module(material), material)
    require(len(scores) > 0, "there are no scores")
    for name, score in scores.items():
        require(
            isinstance(name, str) and isinstance(score, Score),
            f"scores must map names to Scores, as share(...) of aimcore.evaluation gives them; {name!r} is {score!r}",
        )
        require(score.num > 0, f"{name} judges {score.num} things: say in problems_with_data why there is none")
        parts = {"value": score.value, "chance": score.chance}
        wrong = {part: value for part, value in parts.items() if value is not None and not 0 <= value <= 1}
        require(not wrong, f"{name} must be a share of 1, got {wrong}")
        low, high = score.ci95 or (score.value, score.value)
        require(
            0 <= low <= score.value <= high <= 1, f"{name}: {score.value} lies outside of its interval {score.ci95}"
        )


def check_scores_are_the_same_every_time(evaluation: Evaluation) -> None:
    """Nothing is drawn from torch's generator: what is random belongs to the image, or to a seed in a field."""
    material = _fitting(evaluation)
    module = _module(material)
    found = []
    for seed in (1, 2):
        with seeded(seed):
            found.append(_scores(evaluation, module, material))
    require(found[0] == found[1], f"two evaluations of one module differ: {found[0]} and {found[1]}")


def check_the_module_is_left_as_it_was(evaluation: Evaluation) -> None:
    """Weights and modes are the same afterwards: other evaluations, and probes, measure the same module."""
    material = _fitting(evaluation)
    module = _module(material)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    with eval_mode(module):
        evaluation.scores(module, material)
        training = [name or "itself" for name, part in module.named_modules() if part.training]
    changed = [name for name, value in module.state_dict().items() if not weights[name].equal(value)]
    require(not changed, f"weights {changed[:3]} are others afterwards: work on a copy")
    require(not training, f"parts {training[:3]} are in training mode afterwards")


def check_scores_can_be_recorded(evaluation: Evaluation) -> None:
    """Scores are plain numbers that JSON gives back."""
    material = _fitting(evaluation)
    for name, score in _scores(evaluation, _module(material), material).items():
        with explained(f"{name} ({score}) cannot be written as JSON: use plain numbers"):
            again = json.loads(json.dumps(attrs.asdict(score), allow_nan=False))
        interval = None if again["ci95"] is None else tuple(again["ci95"])
        require(Score(**again | {"ci95": interval}) == score, f"{name} is another once written and read: {again}")


def check_misfits_are_reported_before_it_fails(evaluation: Evaluation) -> None:
    """Where ``problems_with`` and ``problems_with_data`` say nothing, it can be measured; neither raises anything."""
    for material in _materials(evaluation):
        if not _problems(evaluation, material):
            can = sorted(material.experiment.objective.skills) or "nothing"
            labels = "with" if material.validation.class_names else "without"
            said = f"says nothing against an objective that can {can}, and images {labels} labels, and then fails"
            with explained(said):
                _scores(evaluation, _module(material), material)


CHECKS: tuple[Check, ...] = (
    check_scores_are_shares_of_something,
    check_scores_are_the_same_every_time,
    check_the_module_is_left_as_it_was,
    check_scores_can_be_recorded,
    check_misfits_are_reported_before_it_fails,
)


def _materials(evaluation: Evaluation) -> Iterator[OpenEvaluationData]:
    """Its own examples, and objectives of every skill, on images with and without labels; the most able first.

    An objective that reads text has captions: a study without is refused whatever its evaluations are.
    """
    own: object = type(evaluation).objective_examples()
    require(
        isinstance(own, Sequence) and all(isinstance(objective, Objective) for objective in own),
        f"objective_examples() must return a tuple of instances of objectives, such as (MyObjective(),), got {own!r}",
    )
    for objective in type(evaluation).objective_examples():
        for labels in (True, False):
            yield _material(objective, StandInCaptioned(labels=labels), image_size=16)
    for can in (frozenset({"embed", "caption"}), frozenset({"caption"}), frozenset({"embed"}), frozenset[str]()):
        for labels in (True, False):
            source = StandInCaptioned(captions=bool(can), labels=labels)
            yield _material(StandInSpeaker(gives=can, reads_text=bool(can)), source, image_size=8)


def _material(objective: Objective, source: Source, *, image_size: int) -> OpenEvaluationData:
    data = Data(train=source, validation=source, batch_size=4, image_size=image_size)
    return OpenEvaluationData.of(
        Experiment(name="conformance", data=data, trunk=StandInTrunk(), objective=objective, num_steps=1)
    )


def _problems(evaluation: Evaluation, material: OpenEvaluationData) -> list[str]:
    with explained("what does not fit must be yielded, not raised"):
        misfits = [*evaluation.problems_with(material.experiment.objective)]
        # Data is only looked at where the objective fits.
        return misfits or [*evaluation.problems_with_data(material)]


def _fitting(evaluation: Evaluation) -> OpenEvaluationData:
    """The first material that nothing is said against.

    Raises:
        AssertionError: there is none.
    """
    materials, problems = list(_materials(evaluation)), []
    for material in materials:
        try:
            found = [*evaluation.problems_with(material.experiment.objective)] or [
                *evaluation.problems_with_data(material)
            ]
        except FAULTS:  # the check of misfits tells
            return materials[0]
        if not found:
            return material
        problems += found
    said = "; ".join(dict.fromkeys(problems))
    raise AssertionError(
        f"it fits no objective that there is to check it on ({said}): give some in its class method "
        "objective_examples()"
    )


def _module(material: OpenEvaluationData) -> ObjectiveModule:
    with seeded():
        return assembled(material.experiment.trunk, material.experiment.objective)


def _scores(evaluation: Evaluation, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
    with eval_mode(module):
        return evaluation.scores(module, material)
