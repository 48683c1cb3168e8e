"""Checks of an experiment's parts: values, vocabularies, and files of weights. No data are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.optimizers import Optimizer
from aimcore.data.sampling import require_even_batches
from aimcore.engine.freezing import freeze, problems_of
from aimcore.engine.initial_weights import check_weights
from aimcore.engine.parameter_groups import torch_optimizer
from aimcore.engine.recomputation import recomputation_problems
from aimcore.engine.weights_fit import require_apart
from aimcore.experiment import Data, Experiment
from aimcore.recipe import checked


def recipe_problems(experiment: Experiment) -> Iterable[Problem]:
    """Raise if the recipe of ``experiment`` does not load to an equal experiment, as with a component of no plugin.

    Raises:
        RecipeError: the recipe does not load to an equal experiment.
    """
    checked(experiment)
    return ()


def batch_problems(data: Data, world_size: int, accumulation_steps: int) -> Iterable[Problem]:
    """Raise if a step does not divide over processes and micro-batches.

    Raises:
        InvalidValue: a step does not divide; the message names numbers that do.
    """
    require_even_batches(data, world_size, accumulation_steps)
    return ()


def evaluation_problems(evaluations: Sequence[Evaluation], objective: Objective) -> Iterator[Problem]:
    """Yield why ``evaluations`` cannot measure ``objective``."""
    for number, evaluation in enumerate(evaluations):
        yield from (Problem(f"evaluations.{number}", text) for text in evaluation.problems_with(objective))


def vocabulary_problems(objective: Objective) -> Iterator[Problem]:
    """Yield why the objective's tokenizer cannot be used: no vocabulary, a changed one, or no room for text."""
    if objective.text is not None:
        tokenizer, context_length = objective.text
        try:
            tokenizer.encode([""], context_length)
        except AimcoreError as error:
            yield Problem("objective.tokenizer", str(error))


def module_problems(experiment: Experiment, build: Callable[[], ObjectiveModule]) -> Iterator[Problem]:
    """Yield settings with which ``build`` cannot build trunk and objective, or raise if it cannot for another reason.

    Raises:
        AimcoreError: the modules cannot be built, or have too many parameters.
    """
    try:
        build()
    except InvalidValue as error:
        path = _path_to(error.owner, {"trunk": experiment.trunk, "objective": experiment.objective})
        yield from (Problem(".".join(filter(None, (path, field))), text) for field, text in error.problems)


def _path_to(owner: str, places: Mapping[str, Component]) -> str:
    """Return the path of the component whose class or name is ``owner``, or ""; outer ones come first."""
    for path, component in places.items():
        if owner in (type(component).__name__, component.name):
            return path
    inner = {
        f"{path}.{field}": value
        for path, component in places.items()
        for field, value in attrs.asdict(cast(Any, component), recurse=False).items()
        if isinstance(value, Component)
    }
    return _path_to(owner, inner) if inner else ""


def frozen_problems(module: ObjectiveModule, frozen: Sequence[str]) -> Iterable[Problem]:
    """Yield names in ``frozen`` that match no parameter, and a problem if nothing is left to train."""
    return problems_of(module, frozen)


def recomputation_problems_of(module: ObjectiveModule, experiment: Experiment) -> Iterator[Problem]:
    """Yield a problem if activations cannot be recomputed as the engine is set to."""
    yield from (Problem("engine.checkpoint_activations", text) for text in recomputation_problems(module, experiment))


def optimizer_problems(module: ObjectiveModule, optimizer: Optimizer, frozen: Sequence[str]) -> Iterator[Problem]:
    """Yield invalid learning rates of parameters, or raise if the optimizer cannot be built.

    Parameters are frozen while it is built, as in training, so that it receives the same groups.

    Raises:
        BrokenContract: a module's rate multipliers are wrong, or the optimizer's groups.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        freeze(module, frozen)
        torch_optimizer(module, optimizer)
    except InvalidValue as error:
        yield from (Problem(path, message) for path, message in error.problems)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def weight_problems(experiment: Experiment, module: ObjectiveModule) -> Iterator[Problem]:
    """Yield files of initial weights that are missing, were changed, or do not fit their parts of ``module``.

    Raises:
        WeightsMismatch: two files would give the same tensor.
    """
    for path, weights in experiment.weights_by_path.items():
        if weights.url is not None:
            try:
                check_weights(experiment, module, weights)
            except AimcoreError as error:
                yield Problem(path, str(error))
    require_apart(module, experiment.weights_by_path)
