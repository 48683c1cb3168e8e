"""Probes, each broken in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimcore import Augmentation, FittedProbe, LabelledFeatures, Probe, component
from aimcore.contracts.probes import FeatureStream
from aimcore.testing.checks import probes as checks


class FittedMeans(FittedProbe):
    def __init__(self, means_CD: Tensor, choice: Mapping[str, Any]) -> None:
        self.means_CD = means_CD
        self.choice = choice

    def predict(self, features: Tensor) -> Tensor:
        return torch.cdist(features, self.means_CD).argmin(-1)


@component("sound")
class Sound(Probe):
    """The class whose mean is nearest."""

    def layers_of(self, depth: int) -> tuple[int, ...]:
        return (depth - 1,)

    def means(self, train: LabelledFeatures) -> Tensor:
        return torch.stack([train.features[train.labels == label].mean(0) for label in range(train.num_classes)])

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        return FittedMeans(self.means(train), {"held_out": len(held_out.labels)})


@component("mutant")
class Deep(Sound):
    """Reads six layers, however many there are."""

    def layers_of(self, depth: int) -> tuple[int, ...]:
        return tuple(range(depth - 6, depth))


class FittedFloats(FittedMeans):
    def predict(self, features: Tensor) -> Tensor:
        return super().predict(features).float()


@component("mutant")
class Floats(Sound):
    """Gives classes as floats."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        return FittedFloats(self.means(train), {"held_out": len(held_out.labels)})


@component("mutant")
class Dull(Sound):
    """Learns nothing, unless from a stream."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        return FittedMeans(torch.zeros_like(self.means(train)), {"held_out": len(held_out.labels)})

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        return Sound().fit(train.read(), held_out.read(), seed)


@component("mutant")
class Impatient(Sound):
    """Reads the first piece of a stream only."""

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        return self.fit(next(train.pieces()), next(held_out.pieces()), seed)


@component("mutant")
class Fickle(Sound):
    """Draws from NumPy's generator, whatever the seed."""

    def means(self, train: LabelledFeatures) -> Tensor:
        means_CD = super().means(train)
        return means_CD + torch.from_numpy(np.random.default_rng().normal(size=means_CD.shape)).float() / 2


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator with its seed."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        torch.manual_seed(seed)
        return super().fit(train, held_out, seed)


@component("mutant")
class InPlace(Sound):
    """Scales the features where they stand."""

    def means(self, train: LabelledFeatures) -> Tensor:
        means_CD = super().means(train)
        train.features.mul_(2)
        return means_CD


@component("mutant")
class Wordless(Sound):
    """Records its means as a tensor."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        return FittedMeans(self.means(train), {"means": self.means(train)})


class Augmenting(Sound):
    """Takes the means of the second pass over augmented images."""

    @property
    def augmentation(self) -> Augmentation | None:
        return Augmentation()

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        generator = torch.Generator().manual_seed(seed)
        passes = [list(train.pieces(generator)) for _ in range(2)]
        features, labels = (torch.cat([getattr(piece, name) for piece in passes[1]]) for name in ("features", "labels"))
        return self.fit(LabelledFeatures(features, labels, train.num_classes), held_out.read(), seed)


@component("augmenting")
class SoundAugmenting(Augmenting):
    """Reads augmented images in every epoch."""


@component("mutant")
class Frozen(Augmenting):
    """Reads augmented images once, into memory."""

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        return Probe.fit_stream(self, train, held_out, seed)


SOUND = (Sound(), SoundAugmenting())
MUTANTS = (
    (checks.check_layers_lie_within_any_depth, Deep()),
    (checks.check_predictions_are_one_class_per_sample, Floats()),
    (checks.check_it_learns_what_is_easy, Dull()),
    (checks.check_it_learns_from_a_stream, Impatient()),
    (checks.check_a_probe_that_augments_reads_every_epoch, Frozen()),
    (checks.check_the_same_seed_gives_the_same_probe, Fickle()),
    (checks.check_torchs_generator_is_left_alone, Reseeding()),
    (checks.check_features_are_left_as_they_were, InPlace()),
    (checks.check_its_choice_can_be_recorded, Wordless()),
)
