"""Check that saved weights and the module that loads them use the same vocabulary.

A different vocabulary of the same size fits all shapes, so without this check ids would silently mean other words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from aimcore.contracts.messages import shown
from aimcore.engine.engine_errors import WeightsMismatch
from aimcore.engine.weights_fit import source_of
from aimcore.experiment import Experiment, Weights
from aimcore.experiment.initialization import TRUNK, WHOLE

_KEY = "vocabulary"


def vocabulary(experiment: Experiment) -> dict[str, str]:
    """Describe the tokenizer and its file, under one key; empty if the objective reads no text."""
    if experiment.objective.text is None:
        return {}
    tokenizer, _ = experiment.objective.text
    return {_KEY: f"{tokenizer.name}, {tokenizer.vocabulary_size} ids, {(tokenizer.sha256 or 'no file')[:16]}"}


def require_vocabulary(
    experiment: Experiment, module: nn.Module, weights: Weights, described: Mapping[str, Any]
) -> None:
    """Require that ``experiment`` has the same vocabulary as the model that ``weights`` are from.

    Args:
        experiment: the experiment that begins with the weights.
        module: its objective, which may be on the meta device.
        weights: one of its initial weights.
        described: metadata of the weights, which may contain their :func:`vocabulary`; without it nothing is checked.

    Raises:
        WeightsMismatch: the vocabularies differ.
    """
    if weights.fresh or not _holds_ids(experiment, module, weights):
        return  # with fresh parts the user chooses what is loaded
    there, here = described.get(_KEY), vocabulary(experiment).get(_KEY)
    if there is not None and there != here:
        problem = f"ids of text are of another vocabulary ({shown(there)} there, {shown(here)} here)"
        raise WeightsMismatch(source_of(weights), [problem])


def _holds_ids(experiment: Experiment, module: nn.Module, weights: Weights) -> bool:
    """Whether a part may depend on the meaning of ids: a table of them has as many rows as the vocabulary has ids."""
    if weights.part == WHOLE:
        return True
    if weights.part == TRUNK or experiment.objective.text is None:
        return False
    size = experiment.objective.text[0].vocabulary_size
    return any(
        max(value.shape, default=0) >= size for name, value in module.state_dict().items() if weights.gives(name)
    )
