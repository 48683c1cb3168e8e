"""Built-in objectives."""

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_objectives.cappa import CapPa
from aimcore_objectives.captioning import Captioning
from aimcore_objectives.classification import CLASSIFY, Classification
from aimcore_objectives.contrastive import Contrastive
from aimcore_objectives.dvae import DiscreteVAE
from aimcore_objectives.masked_patch import MaskedPatch
from aimcore_objectives.multimodal import Multimodal
from aimcore_objectives.next_patch import NextPatch
from aimcore_objectives.no_training import NoTraining
from aimcore_objectives.transformers_towers import TransformersTowers


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """Objectives of both papers with their baselines, classification, a discrete VAE, and two that train nothing."""
    return [
        NextPatch,
        MaskedPatch,
        Multimodal,
        Captioning,
        CapPa,
        Contrastive,
        Classification,
        DiscreteVAE,
        NoTraining,
        TransformersTowers,
    ]


__all__ = [
    "CLASSIFY",
    "CapPa",
    "Captioning",
    "Classification",
    "Contrastive",
    "DiscreteVAE",
    "MaskedPatch",
    "Multimodal",
    "NextPatch",
    "NoTraining",
    "TransformersTowers",
]
