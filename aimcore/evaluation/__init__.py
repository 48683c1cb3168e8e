"""Measurements of a trained objective: validation losses, evaluations, and probes on frozen features."""

import warnings
from typing import Any

from aimcore.contracts import evaluations as _contract
from aimcore.evaluation.caption_generation import Caption, NeverStops, Sampling, generate, learns_to_stop
from aimcore.evaluation.evaluation_data import OpenEvaluationData, shuffled
from aimcore.evaluation.feature_cache import CacheNotShared, FeatureCache
from aimcore.evaluation.feature_extraction import extract_all, extract_features
from aimcore.evaluation.feature_tables import FeatureKind, FeatureTable
from aimcore.evaluation.intervals import share, wilson_interval
from aimcore.evaluation.objective_scores import Evaluated, evaluate
from aimcore.evaluation.outcomes import Outcome
from aimcore.evaluation.probing import ProbeScore, check_probes, probe_experiment
from aimcore.evaluation.raw_pixels import raw_pixel_features
from aimcore.evaluation.shared_batches import TooFewBatches
from aimcore.evaluation.similarity import chance_of_hits, compared, embedded_texts, hits, similarities
from aimcore.evaluation.validation import NonFiniteLoss, Validation, ValidationLoss, loss_by_chunk, validate

__all__ = [
    "CacheNotShared",
    "Caption",
    "Evaluated",
    "FeatureCache",
    "FeatureKind",
    "FeatureTable",
    "NeverStops",
    "NonFiniteLoss",
    "OpenEvaluationData",
    "Outcome",
    "ProbeScore",
    "Sampling",
    "TooFewBatches",
    "Validation",
    "ValidationLoss",
    "chance_of_hits",
    "check_probes",
    "compared",
    "embedded_texts",
    "evaluate",
    "extract_all",
    "extract_features",
    "generate",
    "hits",
    "learns_to_stop",
    "loss_by_chunk",
    "probe_experiment",
    "raw_pixel_features",
    "share",
    "shuffled",
    "similarities",
    "validate",
    "wilson_interval",
]

_MOVED = {"Captioned": "Captioned", "Material": "EvaluationData", "Split": "Split"}
"""Old name here -> name in aimcore.contracts.evaluations; until 0.3."""


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module 'aimcore.evaluation' has no attribute {name!r}")
    warnings.warn(
        f"aimcore.evaluation.{name} is now aimcore.contracts.evaluations.{_MOVED[name]}, and the old name will be gone "
        "in aimcore 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(_contract, _MOVED[name])
