"""What a trained run is worth: validation losses, frozen features, and the probes on them."""

from aimcore.evaluation.cache import CacheNotShared, FeatureCache
from aimcore.evaluation.evaluating import evaluate
from aimcore.evaluation.features import extract_all, extract_features
from aimcore.evaluation.intervals import share, wilson_interval
from aimcore.evaluation.material import Captioned, Material
from aimcore.evaluation.probing import Outcome, ProbeScore, check_probes, probe_experiment
from aimcore.evaluation.ranks import TooFewBatches
from aimcore.evaluation.raw_pixels import raw_pixel_features
from aimcore.evaluation.tables import FeatureKind, FeatureTable
from aimcore.evaluation.validation import NonFiniteLoss, Validation, ValidationLoss, loss_by_chunk, validate

__all__ = [
    "CacheNotShared",
    "Captioned",
    "FeatureCache",
    "FeatureKind",
    "FeatureTable",
    "Material",
    "NonFiniteLoss",
    "Outcome",
    "ProbeScore",
    "TooFewBatches",
    "Validation",
    "ValidationLoss",
    "check_probes",
    "evaluate",
    "extract_all",
    "extract_features",
    "loss_by_chunk",
    "probe_experiment",
    "raw_pixel_features",
    "share",
    "validate",
    "wilson_interval",
]
