"""What ids of text mean, in what is saved and in what it is loaded into.

Another vocabulary of the same size fits all shapes, and would turn every caption into another one unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimcore.contracts.messages import shown
from aimcore.engine.engine_errors import WeightsMismatch
from aimcore.experiment import Experiment

_KEY = "vocabulary"


def vocabulary(experiment: Experiment) -> dict[str, str]:
    """The tokenizer and its file, under one key; empty where no text is read."""
    if experiment.objective.text is None:
        return {}
    tokenizer, _ = experiment.objective.text
    return {_KEY: f"{tokenizer.name}, {tokenizer.vocabulary_size} ids, {(tokenizer.sha256 or 'no file')[:16]}"}


def require_vocabulary(experiment: Experiment, described: Mapping[str, Any]) -> None:
    """See that ids of text mean in ``experiment`` what they meant to its initial weights.

    Args:
        experiment: what begins with them.
        described: the :func:`vocabulary` of what they are from, among other things; one that says nothing passes.

    Raises:
        WeightsMismatch: they do not.
    """
    weights = experiment.initial_weights
    assert weights is not None
    if weights.part != "all" or weights.fresh:
        return  # the trunk reads no text, and who names fresh parts knows what is left
    there, here = described.get(_KEY), vocabulary(experiment).get(_KEY)
    if there is not None and there != here:
        source = weights.url or f"what experiment {weights.experiment!r} ends with"
        raise WeightsMismatch(
            source, [f"ids of text are of another vocabulary ({shown(there)} there, {shown(here)} here)"]
        )
