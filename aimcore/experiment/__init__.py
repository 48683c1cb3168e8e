"""Experiments and their settings: frozen values that are validated when they are created."""

from aimcore.contracts.augmentations import Augmentation, RandAugment
from aimcore.contracts.scales import SCALES, Scale
from aimcore.experiment.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Data,
    NativeResolution,
    statistics_of,
)
from aimcore.experiment.default_optimizer import DEFAULT_OPTIMIZER, Optimizer
from aimcore.experiment.experiment import Experiment
from aimcore.experiment.initialization import Branch, Weights
from aimcore.experiment.study import LabelPoint, Scaling, Study
from aimcore.experiment.training import Engine, Precision, Schedule

__all__ = [
    "DEFAULT_OPTIMIZER",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SCALES",
    "Augmentation",
    "Branch",
    "Data",
    "Engine",
    "Experiment",
    "LabelPoint",
    "NativeResolution",
    "Optimizer",
    "Precision",
    "RandAugment",
    "Scale",
    "Scaling",
    "Schedule",
    "Study",
    "Weights",
    "statistics_of",
]
