"""The roles: what kinds of part an experiment is made of. A plugin subclasses one and decorates it as a component.

Shape suffixes are those of :mod:`aimcore.values`.
"""

from aimcore.component import Component
from aimcore.roles.evaluations import Evaluation
from aimcore.roles.objectives import Objective, Skill
from aimcore.roles.predicting import Decoder, Head, Target
from aimcore.roles.probes import FeatureStream, FittedProbe, Probe
from aimcore.roles.sources import OpenSource, PixelStatistics, Source
from aimcore.roles.tokenizers import ImageTokenizer, TextTokenizer, Tokenizer
from aimcore.roles.trackers import Tracker, TrackerRun
from aimcore.roles.trunks import Ordering, Trunk

ROLES: tuple[type[Component], ...] = (
    Tokenizer, Ordering, Target, Head, Decoder, Probe, Evaluation, Objective, Trunk, Source, Tracker,
)  # fmt: skip

__all__ = [
    "ROLES",
    "Decoder",
    "Evaluation",
    "FeatureStream",
    "FittedProbe",
    "Head",
    "ImageTokenizer",
    "Objective",
    "OpenSource",
    "Ordering",
    "PixelStatistics",
    "Probe",
    "Skill",
    "Source",
    "Target",
    "TextTokenizer",
    "Tokenizer",
    "Tracker",
    "TrackerRun",
    "Trunk",
]
