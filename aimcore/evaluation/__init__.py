"""What a trained run is worth: validation losses, frozen features, and the probes on them."""

from aimcore.evaluation.cache import CacheNotShared, FeatureCache
from aimcore.evaluation.evaluating import Evaluated, evaluate
from aimcore.evaluation.features import extract_all, extract_features
from aimcore.evaluation.generation import Caption, NeverStops, Sampling, generate, learns_to_stop
from aimcore.evaluation.intervals import share, wilson_interval
from aimcore.evaluation.matching import chance_of_hits, compared, embedded_texts, hits, similarities
from aimcore.evaluation.material import Captioned, Material, Split, shuffled
from aimcore.evaluation.probing import Outcome, ProbeScore, check_probes, probe_experiment
from aimcore.evaluation.ranks import TooFewBatches
from aimcore.evaluation.raw_pixels import raw_pixel_features
from aimcore.evaluation.tables import FeatureKind, FeatureTable
from aimcore.evaluation.validation import NonFiniteLoss, Validation, ValidationLoss, loss_by_chunk, validate

__all__ = [
    "CacheNotShared",
    "Caption",
    "Captioned",
    "Evaluated",
    "FeatureCache",
    "FeatureKind",
    "FeatureTable",
    "Material",
    "NeverStops",
    "NonFiniteLoss",
    "Outcome",
    "ProbeScore",
    "Sampling",
    "Split",
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
