"""The base of probes that train a grid of settings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Generator

from aimcore import (
    Augmentation,
    FeatureStream,
    FittedProbe,
    LabelledFeatures,
    Probe,
    Problem,
    RandAugment,
    at_least,
    settings,
)
from aimcore.contracts import limits
from aimcore_probes.grid import GridModule, GridTraining, fit_grid
from aimcore_probes.layers import chosen_layers, problems_with_layers
from aimcore_probes.samples import samples_of

HELD_OUT_CHOICE = (
    "the setting is chosen on held-out training images; the papers report the best of the grid and describe no "
    "held-out choice"
)
"""Departure of every probe with a grid."""
NOT_AUGMENTED = (
    "features are those of images that are not augmented; the papers train on RandomResizedCrop (0.08 to 1), flips, "
    "colour jitter and a RandAugment policy"
)
"""Departure of probes on stored features."""
PAPERS_AUGMENTATION = Augmentation(
    crop_scale=(0.08, 1.0),
    color_jitter=(0.3, 0.3, 0.3, 0.0),
    color_jitter_probability=1.0,
    rand_augment=RandAugment(),
)
"""The augmentation of arXiv:2401.08541, Table 11, and of arXiv:2411.14402, Table A2: RandomResizedCrop, flip, colour
jitter 0.3 and ``rand-m9-mstd0.5-inc1``."""
_NOT_IN_TABLES = frozenset({"num_heads", "augmentation"})


@settings
class GridProbe(Probe):
    """A probe with one classifier per setting, all trained in one pass. The defaults are arXiv:2401.08541, Table 11."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 5e-4, 10e-4, 15e-4, 20e-4, 40e-4)
    """Peak rates; each has a classifier."""
    min_lr: float = 1e-5
    """Learning rate at the end of every cosine."""
    betas: tuple[float, float] = (0.9, 0.999)
    epochs: int = 100
    """Passes over the features: 100, or 50 on ImageNet."""
    min_steps: int = 0
    """Least number of updates: with few images there are more epochs, and proportionally more of warm-up."""
    warmup_epochs: int = 0
    """Number of these passes with a linearly rising rate: 0, or 5 on ImageNet."""
    batch_size: int = 512
    """512, or 1024 on ImageNet."""
    gradient_clipping: float | None = 3.0
    """Largest gradient norm of each classifier; None does not clip."""
    layers: tuple[int, ...] | None = None
    """Blocks whose raw outputs are averaged, counted from 0; by default the last six, or all of a shallower trunk.
    An empty tuple selects the trunk's own output, after its final norm."""
    augmentation: Augmentation | None = None
    """Augmentation of the training images: the features are then computed anew in every epoch. By default they are
    computed once, from images that are not augmented, which is quick and departs from the papers."""

    @property
    @abstractmethod
    def decays(self) -> tuple[float, ...]:
        """Weight decays; each is combined with every rate."""

    @classmethod
    @abstractmethod
    def published(cls) -> Mapping[str, GridProbe]:
        """Return the published protocols by the name of their table."""

    @abstractmethod
    def module(self, shape: tuple[int, ...], num_classes: int, generator: Generator) -> GridModule:
        """Build one fresh classifier per setting, for features of this ``shape`` per sample."""

    def settled(self, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """Describe settings that follow from the features' shape, for the protocol card."""
        return {}

    @property
    def grid(self) -> tuple[tuple[float, float], ...]:
        """(peak rate, weight decay) of every classifier."""
        return tuple((rate, decay) for decay in self.decays for rate in self.learning_rates)

    def problems(self) -> Iterable[Problem]:
        """Yield rates that are repeated or below ``min_lr``, and counts that are not positive."""
        yield from at_least("min_lr", self.min_lr, 0, limits.RATE)
        rates = self.learning_rates
        if not rates or len(set(rates)) < len(rates) or not min(rates) >= self.min_lr or min(rates) == 0:
            yield Problem("learning_rates", f"must be distinct positive rates, none below min_lr, got {rates}")
        elif max(rates) > limits.RATE:
            yield Problem("learning_rates", f"must be at most {limits.RATE:g}, got {rates}")
        if not all(0 <= beta < 1 for beta in self.betas):
            yield Problem("betas", f"must lie in [0, 1), got {self.betas}")
        yield from at_least("epochs", self.epochs, 1, limits.EPOCHS)
        yield from at_least("min_steps", self.min_steps, 0, limits.STEPS)
        if not 0 <= self.warmup_epochs < self.epochs:
            yield Problem("warmup_epochs", f"must lie in [0, epochs), got {self.warmup_epochs} of {self.epochs}")
        yield from at_least("batch_size", self.batch_size, 2, limits.BATCH)
        if self.gradient_clipping is not None and not self.gradient_clipping > 0:
            yield Problem("gradient_clipping", f"must be positive or null, got {self.gradient_clipping}")
        yield from problems_with_layers(self.layers)

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """Return ``layers``, or the last six blocks, or all blocks of a shallower trunk."""
        return chosen_layers(self.layers, depth)

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        """Train every setting on ``train``, and keep the best one on ``held_out``.

        ``seed`` draws the weights, if any are drawn, and shuffles the samples. The same seed gives the same probe on
        the same machine.

        Raises:
            InvalidValue: too few samples, or labels that are not classes.
        """
        return self._fit(train, held_out, seed)

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        """Like :meth:`fit`, with a bounded number of features in memory; samples are shuffled piece by piece."""
        return self._fit(train, held_out, seed)

    def _fit(
        self, train: LabelledFeatures | FeatureStream, held_out: LabelledFeatures | FeatureStream, seed: int
    ) -> FittedProbe:
        generator = torch.Generator().manual_seed(seed)
        samples = samples_of(train)
        module = self.module(samples.shape, train.num_classes, generator)
        fitted = fit_grid(self.training_for(len(samples.labels)), module, samples, samples_of(held_out), generator)
        fitted.choice.update(self.settled(samples.shape))
        return fitted

    def training_for(self, num_images: int) -> GridTraining:
        """Return how the classifiers are trained on ``num_images``, with at least ``min_steps`` updates."""
        steps_per_epoch = max(1, num_images // min(self.batch_size, max(1, num_images)))
        epochs = max(self.epochs, -(-self.min_steps // steps_per_epoch))
        return GridTraining(
            grid=self.grid,
            min_lr=self.min_lr,
            betas=self.betas,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * epochs // self.epochs,
            batch_size=self.batch_size,
            gradient_clipping=self.gradient_clipping,
        )

    def departures(self) -> Iterable[str]:
        """Yield the departures of all such probes, and each field that differs from the closest published protocol."""
        yield HELD_OUT_CHOICE
        if self.augmentation is None:
            yield NOT_AUGMENTED
        elif self.augmentation != PAPERS_AUGMENTATION:
            yield f"images are augmented by {self.augmentation}; the papers have {PAPERS_AUGMENTATION}"
        yield from self._closest()[1]

    @property
    def protocol(self) -> str:
        """The closest published protocol, and whether the features are stored."""
        table, differences = self._closest()
        name = f"close to {table}" if differences else table
        if self.augmentation is None:
            return f"{name}, on stored features of images that are not augmented (quick)"
        return name if self.augmentation == PAPERS_AUGMENTATION else f"{name}, with another augmentation"

    def _closest(self) -> tuple[str, list[str]]:
        """Return the table that differs in the fewest fields, and these differences."""
        differences = {table: list(_differences(self, probe, table)) for table, probe in self.published().items()}
        return min(differences.items(), key=lambda item: len(item[1]))


def _differences(probe: GridProbe, published: GridProbe, table: str) -> Iterable[str]:
    for field in attrs.fields(type(probe)):  # type: ignore[arg-type]  # components are attrs classes
        name, own, other = field.name, getattr(probe, field.name), getattr(published, field.name)
        if own != other and name not in _NOT_IN_TABLES:
            yield f"{name} is {_text(own)}; {table} has {_text(other)}"


def _text(value: object) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
