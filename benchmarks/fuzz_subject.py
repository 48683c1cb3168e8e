"""What every kind of damaged input shares: sound files, damaged ones, and a tiny experiment."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from aimcore import Data, Experiment
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Raster
from aimcore_sources import BundledFashionMNIST
from aimcore_targets import NormalizedPixels
from aimcore_trunks import ViT

TEXTS = ("a red square", "two dogs, running", "ein Haus am See", "the moon over a quiet harbour")


class Fault(Exception):
    """Something was read as it is not, and nobody was told."""


class Subject(ABC):
    """One kind of input: sound files that are made once, and a damaged one for each case."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        """Make the sound files; ``folder`` is empty, and the subject's own."""
        self.folder = folder
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what is damaged later, and see that it is sound."""

    @abstractmethod
    def try_case(self, draw: random.Random) -> None:
        """Damage one file and read it.

        Raises:
            AimcoreError: it was refused.
            Fault: it was read as something that it is not.
        """


def experiment(**changes: Any) -> Experiment:
    """A tiny experiment on bundled images."""
    data = Data(
        train=BundledFashionMNIST(split="train"), validation=BundledFashionMNIST(split="test"), batch_size=4,
        image_size=28,
    )  # fmt: skip
    objective = NextPatch(ordering=Raster(), target=NormalizedPixels(), head=MLPHead(width=8, depth=1), prefix=None)
    trunk = ViT(width=8, depth=1, num_heads=2, patch_size=14)
    return Experiment(name="tiny", data=data, trunk=trunk, objective=objective, num_steps=4, **changes)
