"""Built-in objectives."""

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_objectives.cappa import CapPa
from aimcore_objectives.captioning import Captioning
from aimcore_objectives.classification import CLASSIFY, Classification
from aimcore_objectives.contrastive import Contrastive
from aimcore_objectives.masked_patch import MaskedPatch
from aimcore_objectives.multimodal import Multimodal
from aimcore_objectives.next_patch import NextPatch
from aimcore_objectives.no_training import NoTraining


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """AIM's next-patch prediction, masked patches, AIMv2's objective and its baselines, classification, no training."""
    return [NextPatch, MaskedPatch, Multimodal, Captioning, CapPa, Contrastive, Classification, NoTraining]


__all__ = [
    "CLASSIFY",
    "CapPa",
    "Captioning",
    "Classification",
    "Contrastive",
    "MaskedPatch",
    "Multimodal",
    "NextPatch",
    "NoTraining",
]
