"""aimcore: pre-train and study autoregressive vision encoders (AIM, arXiv:2401.08541; AIMv2, arXiv:2411.14402).

Importing this package loads neither torch nor deepspeed: names that need torch are fetched on first use.
"""

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from loguru import logger as _logger

from aimcore.component import Component, Problem, at_least, component, positive, settings, within
from aimcore.errors import AimcoreError, DataNotFound, InvalidValue, UnreadableSample
from aimcore.experiment import (
    SCALES,
    Augmentation,
    Branch,
    Data,
    Engine,
    Experiment,
    NativeResolution,
    Optimizer,
    Scale,
    Scaling,
    Schedule,
    Study,
    Weights,
)
from aimcore.hookspecs import hookimpl
from aimcore.roles import (
    Decoder,
    Evaluation,
    FeatureStream,
    FittedProbe,
    Head,
    ImageTokenizer,
    Objective,
    OpenSource,
    Ordering,
    PixelStatistics,
    Probe,
    Source,
    Target,
    TextTokenizer,
    Tokenizer,
    Tracker,
    TrackerRun,
    Trunk,
)

if TYPE_CHECKING:
    from aimcore.modules import DecoderModule, HeadModule, ObjectiveModule, PredictedPatches, TrunkModule
    from aimcore.running.experiment_run import run_experiment
    from aimcore.running.study_run import run_study
    from aimcore.values import (
        BIDIRECTIONAL,
        CAUSAL,
        Ability,
        Attention,
        Batch,
        Features,
        Images,
        LabelledFeatures,
        Loss,
        PatchGrid,
        Reading,
        Sample,
        Score,
        Text,
        View,
    )

# A library adds no log output of its own; aimcore.run turns it on.
_logger.disable("aimcore")

_LAZY = {
    **dict.fromkeys(
        ("DecoderModule", "HeadModule", "ObjectiveModule", "PredictedPatches", "TrunkModule"), "aimcore.modules"
    ),
    "run_experiment": "aimcore.running.experiment_run",
    "run_study": "aimcore.running.study_run",
    **dict.fromkeys(
        (
            "BIDIRECTIONAL", "CAUSAL", "Ability", "Attention", "Batch", "Features", "Images", "LabelledFeatures",
            "Loss", "PatchGrid", "Reading", "Sample", "Score", "Text", "View",
        ),
        "aimcore.values",
    ),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("aimcore")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'aimcore' has no attribute {name!r}")


__all__ = [
    "BIDIRECTIONAL",
    "CAUSAL",
    "SCALES",
    "Ability",
    "AimcoreError",
    "Attention",
    "Augmentation",
    "Batch",
    "Branch",
    "Component",
    "Data",
    "DataNotFound",
    "Decoder",
    "DecoderModule",
    "Engine",
    "Evaluation",
    "Experiment",
    "FeatureStream",
    "Features",
    "FittedProbe",
    "Head",
    "HeadModule",
    "ImageTokenizer",
    "Images",
    "InvalidValue",
    "LabelledFeatures",
    "Loss",
    "NativeResolution",
    "Objective",
    "ObjectiveModule",
    "OpenSource",
    "Optimizer",
    "Ordering",
    "PatchGrid",
    "PixelStatistics",
    "PredictedPatches",
    "Probe",
    "Problem",
    "Reading",
    "Sample",
    "Scale",
    "Scaling",
    "Schedule",
    "Score",
    "Source",
    "Study",
    "Target",
    "Text",
    "TextTokenizer",
    "Tokenizer",
    "Tracker",
    "TrackerRun",
    "Trunk",
    "TrunkModule",
    "UnreadableSample",
    "View",
    "Weights",
    "at_least",
    "component",
    "hookimpl",
    "positive",
    "run_experiment",
    "run_study",
    "settings",
    "within",
]
