"""Built-in objectives."""

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_objectives.cappa import CapPa
from aimcore_objectives.captioning import Captioning
from aimcore_objectives.classification import Classification
from aimcore_objectives.contrastive import Contrastive
from aimcore_objectives.multimodal import Multimodal
from aimcore_objectives.next_patch import NextPatch
from aimcore_objectives.no_training import NoTraining


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """Next-patch prediction, AIMv2's multimodal objective, captioning, CapPa, contrast, classification, no training."""
    return [NextPatch, Multimodal, Captioning, CapPa, Contrastive, Classification, NoTraining]


__all__ = ["CapPa", "Captioning", "Classification", "Contrastive", "Multimodal", "NextPatch", "NoTraining"]
