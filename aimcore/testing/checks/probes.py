"""Checks of probes: they learn easy classes, are reproducible, and record the settings that they choose."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from aimcore.contracts.probes import FeatureStream, FittedProbe, Probe
from aimcore.contracts.results import LabelledFeatures
from aimcore.testing.checks import Check
from aimcore.testing.requirements import explained, require, seeded, shape_of

_CLASSES, _WIDTH, _TOKENS = 3, 8, 4
_ENOUGH = 0.9


def check_layers_lie_within_any_depth(probe: Probe) -> None:
    """``layers_of(depth)`` are distinct block indices from 0 to depth - 1, ascending, for any depth."""
    for depth in (1, 2, 6, 24):
        found = tuple(probe.layers_of(depth))
        good = all(type(layer) is int and 0 <= layer < depth for layer in found) and list(found) == sorted(set(found))
        require(good, f"layers_of({depth}) must be distinct ascending indices below {depth}, got {found}")


def check_predictions_are_one_class_per_sample(probe: Probe) -> None:
    """``predict`` gives ``[n]`` int64 classes."""
    data = _data(probe, spread=0.1, seed=2)
    found = _fitted(probe).predict(data.features)
    good = found.shape == data.labels.shape and found.dtype == torch.int64
    require(
        good, f"predictions for {len(data.labels)} samples must be [{len(data.labels)}] int64, got {shape_of(found)}"
    )


def check_it_learns_what_is_easy(probe: Probe) -> None:
    """The probe separates three distant clusters."""
    data = _data(probe, spread=0.1, seed=2)
    accuracy = (_fitted(probe).predict(data.features).flatten() == data.labels).double().mean()
    require(accuracy >= _ENOUGH, f"its accuracy on three distant clusters is {accuracy:.0%}: is it trained at all?")


def check_it_learns_from_a_stream(probe: Probe) -> None:
    """``fit_stream`` learns as well from features in pieces."""
    data = _data(probe, spread=0.1, seed=2)
    train, held_out = (_Pieces(_data(probe, spread=0.1, seed=seed)) for seed in (0, 1))
    accuracy = (probe.fit_stream(train, held_out, 0).predict(data.features).flatten() == data.labels).double().mean()
    require(accuracy >= _ENOUGH, f"its accuracy from a stream of pieces is {accuracy:.0%}: does it read all of them?")


def check_a_probe_that_augments_reads_every_epoch(probe: Probe) -> None:
    """With an ``augmentation``, ``fit_stream`` reads its training images by ``pieces(generator)`` alone.

    Every such pass has other crops. Reading all features into memory once, as the default ``fit_stream`` does, would
    train every epoch on the same crop.
    """
    if probe.augmentation is None:
        return
    train, held_out = (_Pieces(_data(probe, spread=0.1, seed=seed)) for seed in (0, 1))
    probe.fit_stream(train, held_out, 0)
    shuffled = [generator is not None for generator in train.passes]
    require(
        len(shuffled) > 0 and all(shuffled),
        f"training images were read {len(shuffled)} times, {shuffled.count(False)} of them in a fixed order: override "
        "fit_stream, and read them by pieces(generator) in every epoch",
    )


def check_the_same_seed_gives_the_same_probe(probe: Probe) -> None:
    """``fit`` draws from its ``seed`` alone."""
    data = _data(probe, spread=2.0, seed=2)
    with seeded(1):
        first = _fitted(probe, spread=2.0).predict(data.features)
    with seeded(2):
        again = _fitted(probe, spread=2.0).predict(data.features)
    require(
        torch.equal(first, again),
        "two fits with one seed predict differently: draw from torch.Generator().manual_seed(seed)",
    )


def check_torchs_generator_is_left_alone(probe: Probe) -> None:
    """``fit`` neither seeds nor uses torch's global generator: the next probe's numbers would change."""
    with seeded(5):
        before = torch.get_rng_state()
        _fitted(probe)
        left_alone = torch.equal(before, torch.get_rng_state())
    require(
        left_alone, "torch's global generator was used or seeded: use a torch.Generator, or torch.random.fork_rng()"
    )


def check_features_are_left_as_they_were(probe: Probe) -> None:
    """Nothing is changed in place: other probes fit on the same features."""
    train, held_out = _data(probe, spread=0.1, seed=0), _data(probe, spread=0.1, seed=1)
    before = [part.features.clone() for part in (train, held_out)]
    probe.fit(train, held_out, 0).predict(held_out.features)
    unchanged = torch.equal(train.features, before[0]) and torch.equal(held_out.features, before[1])
    require(unchanged, "fit or predict changes the features in place: work on a copy")


def check_its_choice_can_be_recorded(probe: Probe) -> None:
    """``choice`` records the chosen settings, in values that JSON can hold."""
    choice = _fitted(probe).choice
    with explained(f"choice {choice!r} cannot be written as JSON: use numbers, text, lists and dicts"):
        text = json.dumps(dict(choice), allow_nan=False)
    require(text != "{}", "choice is empty: record the chosen settings and their score on the held-out samples")


CHECKS: tuple[Check, ...] = (
    check_layers_lie_within_any_depth,
    check_predictions_are_one_class_per_sample,
    check_it_learns_what_is_easy,
    check_it_learns_from_a_stream,
    check_a_probe_that_augments_reads_every_epoch,
    check_the_same_seed_gives_the_same_probe,
    check_torchs_generator_is_left_alone,
    check_features_are_left_as_they_were,
    check_its_choice_can_be_recorded,
)


class _Pieces(FeatureStream):
    """Features in memory, given out in pieces of a third: by class, or shuffled."""

    def __init__(self, whole: LabelledFeatures) -> None:
        self._whole = whole
        self.labels, self.num_classes = whole.labels, whole.num_classes
        self.shape = tuple(whole.features.shape[1:])
        self.passes: list[Generator | None] = []

    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        self.passes.append(generator)
        number = len(self.labels)
        order = self.labels.argsort(stable=True) if generator is None else torch.randperm(number, generator=generator)
        for part in order.chunk(3):
            yield LabelledFeatures(self._whole.features[part], self.labels[part], self.num_classes)


def _data(probe: Probe, *, spread: float, seed: int, number: int = 60) -> LabelledFeatures:
    """Clusters around three points that differ in every dimension; tokens are one point seen a few times."""
    centres = torch.randn(_CLASSES, _WIDTH, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % _CLASSES
    features: Tensor = centres[labels]
    if probe.reads == "tokens":
        features = features[:, None].expand(-1, _TOKENS, -1)
    noise = torch.randn(features.shape, generator=generator)
    return LabelledFeatures(features=features + spread * noise, labels=labels, num_classes=_CLASSES)


def _fitted(probe: Probe, spread: float = 0.1) -> FittedProbe:
    return probe.fit(_data(probe, spread=spread, seed=0), _data(probe, spread=spread, seed=1, number=30), 0)
