"""What ids of text mean, in what is saved and in what it is loaded into.

Another vocabulary of the same size fits all shapes, and would turn every caption into another one unnoticed.
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
    """The tokenizer and its file, under one key; empty where no text is read."""
    if experiment.objective.text is None:
        return {}
    tokenizer, _ = experiment.objective.text
    return {_KEY: f"{tokenizer.name}, {tokenizer.vocabulary_size} ids, {(tokenizer.sha256 or 'no file')[:16]}"}


def require_vocabulary(
    experiment: Experiment, module: nn.Module, weights: Weights, described: Mapping[str, Any]
) -> None:
    """Check that ids of text mean in ``experiment`` what they meant where ``weights`` were trained.

    Args:
        experiment: what begins with them.
        module: its objective, which may be on the meta device.
        weights: one of its initial weights.
        described: the :func:`vocabulary` of what they are from, among other things; one that says nothing passes.

    Raises:
        WeightsMismatch: they do not.
    """
    if weights.fresh or not _holds_ids(experiment, module, weights):
        return  # a user who names fresh parts knows what is left
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
