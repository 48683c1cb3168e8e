"""aimcore: pre-train and study autoregressive vision encoders (AIM, arXiv:2401.08541; AIMv2, arXiv:2411.14402).

Importing this package loads neither torch nor deepspeed: each name is imported from its module on first use.
"""

from importlib import import_module
from importlib.metadata import version as _version
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from loguru import logger as _logger

if TYPE_CHECKING:
    from aimcore.contracts.assembly import built_target, built_tokenizer
    from aimcore.contracts.augmentations import Augmentation, RandAugment
    from aimcore.contracts.batches import Batch, Extra, Sample, Text, View
    from aimcore.contracts.component import Component, at_least, component, positive, settings, within
    from aimcore.contracts.decoders import Decoder, DecoderModule
    from aimcore.contracts.errors import AimcoreError, DataNotFound, InvalidValue, Problem, UnreadableSample
    from aimcore.contracts.evaluations import Captioned, Evaluation, EvaluationData
    from aimcore.contracts.features import BIDIRECTIONAL, CAUSAL, Attention, Capability, Features, Reading
    from aimcore.contracts.heads import Head, HeadModule
    from aimcore.contracts.images import Images, PatchGrid, PixelStatistics, Preprocessing
    from aimcore.contracts.layouts import FileLayout, StoredModel
    from aimcore.contracts.objectives import Objective, ObjectiveModule, PredictedPatches
    from aimcore.contracts.orderings import Ordering
    from aimcore.contracts.probes import FeatureStream, FittedProbe, Probe
    from aimcore.contracts.results import LabelledFeatures, Loss, Score
    from aimcore.contracts.scales import SCALES, Scale
    from aimcore.contracts.sources import OpenSource, Source
    from aimcore.contracts.targets import Target, TargetModule
    from aimcore.contracts.tokenizers import (
        FittingData,
        ImageTokenizer,
        ImageTokenizerModule,
        TextTokenizer,
        Tokenizer,
        TokenizerFit,
    )
    from aimcore.contracts.trackers import Tracker, TrackerRun
    from aimcore.contracts.trunks import ExportedTrunk, Trunk, TrunkModule
    from aimcore.encoders.encoder import Encoder
    from aimcore.encoders.loading import load_encoder
    from aimcore.experiment.data import Data, NativeResolution
    from aimcore.experiment.default_optimizer import Optimizer
    from aimcore.experiment.experiment import Experiment
    from aimcore.experiment.initialization import Branch, Weights
    from aimcore.experiment.study import LabelPoint, Scaling, Study
    from aimcore.experiment.training import Engine, Schedule
    from aimcore.registry.hookspecs import hookimpl
    from aimcore.running.experiment_run import run_experiment
    from aimcore.running.study_run import run_study

    __version__: str

# Modules that were renamed are found under their old names too; they warn.
__path__.append(str(_Path(__file__).parent / "renamed"))

# A library adds no log output of its own; aimcore.run turns it on.
_logger.disable("aimcore")

_MODULES = {
    "contracts.assembly": "built_target built_tokenizer",
    "contracts.augmentations": "Augmentation RandAugment",
    "contracts.batches": "Batch Extra Sample Text View",
    "contracts.component": "Component at_least component positive settings within",
    "contracts.decoders": "Decoder DecoderModule",
    "contracts.errors": "AimcoreError DataNotFound InvalidValue Problem UnreadableSample",
    "contracts.evaluations": "Captioned Evaluation EvaluationData",
    "contracts.features": "Capability Attention BIDIRECTIONAL CAUSAL Features Reading",
    "contracts.heads": "Head HeadModule",
    "contracts.images": "Images PatchGrid PixelStatistics Preprocessing",
    "contracts.layouts": "FileLayout StoredModel",
    "contracts.objectives": "Objective ObjectiveModule PredictedPatches",
    "contracts.orderings": "Ordering",
    "contracts.probes": "FeatureStream FittedProbe Probe",
    "contracts.results": "LabelledFeatures Loss Score",
    "contracts.scales": "SCALES Scale",
    "contracts.sources": "OpenSource Source",
    "contracts.targets": "Target TargetModule",
    "contracts.tokenizers": "FittingData ImageTokenizer ImageTokenizerModule TextTokenizer Tokenizer TokenizerFit",
    "contracts.trackers": "Tracker TrackerRun",
    "contracts.trunks": "ExportedTrunk Trunk TrunkModule",
    "encoders.encoder": "Encoder",
    "encoders.loading": "load_encoder",
    "experiment.data": "Data NativeResolution",
    "experiment.default_optimizer": "Optimizer",
    "experiment.experiment": "Experiment",
    "experiment.initialization": "Branch Weights",
    "experiment.study": "LabelPoint Scaling Study",
    "experiment.training": "Engine Schedule",
    "registry.hookspecs": "hookimpl",
    "running.experiment_run": "run_experiment",
    "running.study_run": "run_study",
}
"""Module -> the public names that it defines."""
_MODULE_OF = {name: f"aimcore.{module}" for module, names in _MODULES.items() for name in names.split()} | {
    "Ability": "aimcore.contracts.features"  # old name of Capability, until 0.3
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("aimcore")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'aimcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


__all__ = [
    "BIDIRECTIONAL",
    "CAUSAL",
    "SCALES",
    "AimcoreError",
    "Attention",
    "Augmentation",
    "Batch",
    "Branch",
    "Capability",
    "Captioned",
    "Component",
    "Data",
    "DataNotFound",
    "Decoder",
    "DecoderModule",
    "Encoder",
    "Engine",
    "Evaluation",
    "EvaluationData",
    "Experiment",
    "ExportedTrunk",
    "Extra",
    "FeatureStream",
    "Features",
    "FileLayout",
    "FittedProbe",
    "FittingData",
    "Head",
    "HeadModule",
    "ImageTokenizer",
    "ImageTokenizerModule",
    "Images",
    "InvalidValue",
    "LabelPoint",
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
    "Preprocessing",
    "Probe",
    "Problem",
    "RandAugment",
    "Reading",
    "Sample",
    "Scale",
    "Scaling",
    "Schedule",
    "Score",
    "Source",
    "StoredModel",
    "Study",
    "Target",
    "TargetModule",
    "Text",
    "TextTokenizer",
    "Tokenizer",
    "TokenizerFit",
    "Tracker",
    "TrackerRun",
    "Trunk",
    "TrunkModule",
    "UnreadableSample",
    "View",
    "Weights",
    "at_least",
    "built_target",
    "built_tokenizer",
    "component",
    "hookimpl",
    "load_encoder",
    "positive",
    "run_experiment",
    "run_study",
    "settings",
    "within",
]
