"""Built-in evaluations: accuracy, zero-shot classification, retrieval, and captions compared with their references."""

from aimcore import hookimpl
from aimcore_evaluations.accuracy import Accuracy
from aimcore_evaluations.captions import Captions
from aimcore_evaluations.prompts import PROMPTS
from aimcore_evaluations.retrieval import Retrieval
from aimcore_evaluations.zero_shot import ZeroShot

__all__ = ["PROMPTS", "Accuracy", "Captions", "Retrieval", "ZeroShot"]


@hookimpl
def evaluations() -> list[type]:
    """Supply the evaluations."""
    return [Accuracy, Captions, Retrieval, ZeroShot]
