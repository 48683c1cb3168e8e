"""Probes of augmented images: which images they see in which epoch, and how they are tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import pytest
import torch
from core.evaluation.toys import Nearest, ToyTrunkModule, experiment

from aimcore import Augmentation, FittedProbe, InvalidValue, LabelledFeatures, component
from aimcore.contracts.probes import FeatureStream
from aimcore.evaluation import ProbeScore, probe_experiment
from aimcore_probes import AttentiveProbe, LinearProbe

FLIPS = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_probability=0.5)
JITTER = Augmentation(
    crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), color_jitter=(0.3, 0.0, 0.0, 0.0), color_jitter_probability=1.0
)


@component("watching")
class Watching(Nearest):
    """Two epochs over the training images; it keeps what it saw."""

    seen: ClassVar[list[LabelledFeatures]] = []
    held_out: ClassVar[list[LabelledFeatures]] = []
    augmentation: Augmentation | None = JITTER

    def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
        generator = torch.Generator().manual_seed(seed)
        epochs = [_joined(train.pieces(generator), train.num_classes) for _ in range(2)]
        self.seen.extend(epochs)
        self.held_out.append(held_out.read())
        return self.fit(epochs[1], self.held_out[-1], seed)


def _joined(pieces: Iterator[LabelledFeatures], num_classes: int) -> LabelledFeatures:
    features, labels = zip(*((piece.features, piece.labels) for piece in pieces), strict=True)
    return LabelledFeatures(torch.cat(features), torch.cat(labels), num_classes)


def probed(probe: Watching, **how: Any) -> ProbeScore:
    Watching.seen.clear()
    Watching.held_out.clear()
    return probe_experiment(experiment(probes=(probe,)), ToyTrunkModule(), None, **how)["watching"]


def test_every_epoch_has_every_training_image_augmented_anew() -> None:
    score = probed(Watching())
    first, second = Watching.seen[:2]
    assert [len(epoch.labels) for epoch in (first, second)] == [36, 36]
    assert sorted(first.labels.tolist()) == [0] * 18 + [1] * 18
    # Shades are constant images; brightness changes each of them in each epoch in its own way.
    values = [epoch.features[:, 0].sort().values for epoch in (first, second)]
    assert int((values[0] != values[1]).sum()) > 18
    assert score.top1 == 1.0


def test_the_same_seed_gives_the_same_crops_and_another_batch_size_too() -> None:
    found = []
    for batch_size in (128, 7):
        probed(Watching(), batch_size=batch_size)
        found.append([epoch.features[:, 0].sort().values for epoch in Watching.seen[:2]])
    torch.testing.assert_close(found[0], found[1])


def test_held_out_and_test_images_are_not_augmented() -> None:
    clean = probe_experiment(experiment(probes=(Nearest(),)), ToyTrunkModule(), None)["nearest"]
    score = probed(Watching(augmentation=attrs.evolve(FLIPS, flip_probability=1.0)))
    # Flipping constant images changes nothing, so all features are those of the evaluation transform.
    assert torch.equal(score.right_n, clean.right_n)
    probed(Watching())
    with_jitter = Watching.held_out[0].features
    probed(Watching(augmentation=FLIPS))
    assert torch.equal(with_jitter, Watching.held_out[0].features)
    assert len(with_jitter) == 4


def test_raw_pixels_and_the_untrained_trunk_are_augmented_too() -> None:
    Watching.seen.clear()
    score = probe_experiment(experiment(probes=(Watching(),)), ToyTrunkModule(), ToyTrunkModule(scale=0.5))["watching"]
    assert len(Watching.seen) == 6
    pixels = Watching.seen[4].features
    assert pixels.shape == (36, 48)
    assert int((pixels[:, 0].sort().values != Watching.seen[5].features[:, 0].sort().values).sum()) > 18
    assert (score.untrained_top1, score.raw_pixels_top1) == (1.0, 1.0)


def test_the_card_names_the_augmentation_and_how_features_are_computed() -> None:
    card = json.loads(json.dumps(probed(Watching()).card))
    assert card["augmentation"]["color_jitter"] == [0.3, 0.0, 0.0, 0.0]
    assert card["features"].startswith("of training images: computed in every epoch")
    clean = probe_experiment(experiment(), ToyTrunkModule(), None)["nearest"].card
    assert clean["augmentation"].startswith("none")
    assert clean["features"].startswith("computed once per image")


def test_augmented_probes_are_fitted_with_few_labels_too() -> None:
    few: Any = attrs.evolve(experiment(probes=(Watching(),)), probe_labels_per_class=(5,), probe_label_draws=1)
    Watching.seen.clear()
    score = probe_experiment(few, ToyTrunkModule(), None)["watching"]
    assert len(Watching.seen[2].labels) == 8  # of ten images, a fifth is held out
    assert score.by_labels["trained"] == {5: (1.0,)}


def test_the_built_in_probes_train_on_augmented_images() -> None:
    linear = LinearProbe(augmentation=JITTER, epochs=20, batch_size=8, layers=(0,))
    attentive = AttentiveProbe(augmentation=JITTER, epochs=20, batch_size=8, num_heads=1, layers=(0,))
    scores = probe_experiment(experiment(probes=(linear, attentive)), ToyTrunkModule(), None)
    assert (scores["linear"].top1, scores["attentive"].top1) == (1.0, 1.0)


def test_augmentations_that_the_images_cannot_have_are_refused() -> None:
    native: Any = experiment(probes=(Watching(),))
    with pytest.raises(InvalidValue, match=r"probes\.0\.augmentation: must be null with probe_native_area"):
        attrs.evolve(native, probe_native_area=4)
    with pytest.raises(InvalidValue, match=r"probe_every_layer: needs a probe .* does not augment"):
        attrs.evolve(native, probe_every_layer=True)
    two: Any = attrs.evolve(native.data, mean=(0.5, 0.5), std=(0.5, 0.5))
    with pytest.raises(InvalidValue, match=r"probes\.0\.augmentation: changes colours, which images of 2 channels"):
        attrs.evolve(native, data=two)
