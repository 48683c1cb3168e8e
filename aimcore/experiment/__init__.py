"""Experiments, and the settings they are made of: frozen values that check themselves."""

from aimcore.experiment.beginnings import Branch, Weights
from aimcore.experiment.data import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Data, NativeResolution, statistics_of
from aimcore.experiment.run import Experiment
from aimcore.experiment.study import SCALES, Scale, Scaling, Study
from aimcore.experiment.training import Engine, Optimizer, Precision, Schedule

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SCALES",
    "Augmentation",
    "Branch",
    "Data",
    "Engine",
    "Experiment",
    "NativeResolution",
    "Optimizer",
    "Precision",
    "Scale",
    "Scaling",
    "Schedule",
    "Study",
    "Weights",
    "statistics_of",
]
