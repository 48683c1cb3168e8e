"""Checks of evaluations: scores are fractions, repeatable and recordable, and the module is not changed."""

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
    """Each score judges at least one example; its value, interval and chance level lie in [0, 1]."""
    data = _measurable_data(evaluation)
    scores = _scores(evaluation, _module(data), data)
    require(len(scores) > 0, "the evaluation returns no scores")
    for name, score in scores.items():
        require(
            isinstance(name, str) and isinstance(score, Score),
            f"scores must map names to Scores (aimcore.evaluation.share(...) returns one); {name!r} is {score!r}",
        )
        require(score.num > 0, f"{name} judges {score.num} examples: report in problems_with_data why there is none")
        parts = {"value": score.value, "chance": score.chance}
        wrong = {part: value for part, value in parts.items() if value is not None and not 0 <= value <= 1}
        require(not wrong, f"{name} must lie in [0, 1], got {wrong}")
        low, high = score.ci95 or (score.value, score.value)
        require(0 <= low <= score.value <= high <= 1, f"{name}: {score.value} is outside of its interval {score.ci95}")


def check_scores_are_the_same_every_time(evaluation: Evaluation) -> None:
    """Scores do not depend on torch's generator: draw from sample numbers, or from a seed in a field."""
    data = _measurable_data(evaluation)
    module = _module(data)
    found = []
    for seed in (1, 2):
        with seeded(seed):
            found.append(_scores(evaluation, module, data))
    require(found[0] == found[1], f"two evaluations of the same module differ: {found[0]} and {found[1]}")


def check_the_module_is_left_as_it_was(evaluation: Evaluation) -> None:
    """Weights and modes are the same afterwards, because other evaluations and probes measure the same module."""
    data = _measurable_data(evaluation)
    module = _module(data)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    with eval_mode(module):
        evaluation.scores(module, data)
        training = [name or "itself" for name, part in module.named_modules() if part.training]
    changed = [name for name, value in module.state_dict().items() if not weights[name].equal(value)]
    require(not changed, f"weights {changed[:3]} have changed afterwards: work on a copy")
    require(not training, f"parts {training[:3]} are in training mode afterwards")


def check_scores_can_be_recorded(evaluation: Evaluation) -> None:
    """Scores are plain numbers, which can be written as JSON and read back."""
    data = _measurable_data(evaluation)
    for name, score in _scores(evaluation, _module(data), data).items():
        with explained(f"{name} ({score}) cannot be written as JSON: use plain numbers"):
            again = json.loads(json.dumps(attrs.asdict(score), allow_nan=False))
        interval = None if again["ci95"] is None else tuple(again["ci95"])
        require(
            Score(**again | {"ci95": interval}) == score, f"{name} has changed after it was written and read: {again}"
        )


def check_misfits_are_reported_before_it_fails(evaluation: Evaluation) -> None:
    """If ``problems_with`` and ``problems_with_data`` report nothing, scores can be measured; neither raises."""
    for data in _examples_of_data(evaluation):
        if not _problems(evaluation, data):
            skills = sorted(data.experiment.objective.skills) or "no skills"
            labels = "with" if data.validation.class_names else "without"
            with explained(f"reports no problem with an objective of {skills} and images {labels} labels, but fails"):
                _scores(evaluation, _module(data), data)


CHECKS: tuple[Check, ...] = (
    check_scores_are_shares_of_something,
    check_scores_are_the_same_every_time,
    check_the_module_is_left_as_it_was,
    check_scores_can_be_recorded,
    check_misfits_are_reported_before_it_fails,
)


def _examples_of_data(evaluation: Evaluation) -> Iterator[OpenEvaluationData]:
    """Yield data with its own example objectives, then with objectives of every skill, with and without labels.

    Those with most skills come first. Images have captions if the objective reads text, because every study without
    them is refused.
    """
    own: object = type(evaluation).objective_examples()
    require(
        isinstance(own, Sequence) and all(isinstance(objective, Objective) for objective in own),
        f"objective_examples() must return a tuple of instances of objectives, such as (MyObjective(),), got {own!r}",
    )
    for objective in type(evaluation).objective_examples():
        for labels in (True, False):
            yield _data_of(objective, StandInCaptioned(labels=labels), image_size=16)
    for skills in (frozenset({"embed", "caption"}), frozenset({"caption"}), frozenset({"embed"}), frozenset[str]()):
        for labels in (True, False):
            source = StandInCaptioned(captions=bool(skills), labels=labels)
            yield _data_of(StandInSpeaker(gives=skills, reads_text=bool(skills)), source, image_size=8)


def _data_of(objective: Objective, source: Source, *, image_size: int) -> OpenEvaluationData:
    data = Data(train=source, validation=source, batch_size=4, image_size=image_size)
    return OpenEvaluationData.of(
        Experiment(name="conformance", data=data, trunk=StandInTrunk(), objective=objective, num_steps=1)
    )


def _problems(evaluation: Evaluation, data: OpenEvaluationData) -> list[str]:
    with explained("problems must be yielded, not raised"):
        misfits = [*evaluation.problems_with(data.experiment.objective)]
        # Data is checked only if the objective fits.
        return misfits or [*evaluation.problems_with_data(data)]


def _measurable_data(evaluation: Evaluation) -> OpenEvaluationData:
    """Return the first data without problems.

    Raises:
        AssertionError: all data have problems.
    """
    examples, problems = list(_examples_of_data(evaluation)), []
    for data in examples:
        try:
            found = [*evaluation.problems_with(data.experiment.objective)] or [*evaluation.problems_with_data(data)]
        except FAULTS:  # check_misfits_are_reported_before_it_fails reports it
            return examples[0]
        if not found:
            return data
        problems += found
    raise AssertionError(
        f"no objective of the kit can be evaluated ({'; '.join(dict.fromkeys(problems))}): return some from the class "
        "method objective_examples()"
    )


def _module(data: OpenEvaluationData) -> ObjectiveModule:
    with seeded():
        return assembled(data.experiment.trunk, data.experiment.objective)


def _scores(evaluation: Evaluation, module: ObjectiveModule, data: OpenEvaluationData) -> Mapping[str, Score]:
    with eval_mode(module):
        return evaluation.scores(module, data)
