"""Probing an experiment: the same probes on the trained trunk, on the untrained one, and on the raw pixels."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import attrs
import torch

from aimcore.data import hold_out
from aimcore.evaluation.features import Extracted, FeatureKind, extract_all, raw_pixel_features
from aimcore.evaluation.intervals import wilson_interval
from aimcore.evaluation.probe_images import ProbeImages, open_probe_images, probe_sources
from aimcore.evaluation.protocol import HELD_OUT, protocol_card
from aimcore.experiment import Experiment
from aimcore.modules import TrunkModule
from aimcore.roles import Probe


@attrs.frozen
class Outcome:
    """What one fitted probe scored on the test images, and what it had chosen."""

    num_correct: int
    choice: Mapping[str, Any]
    sizes: Mapping[str, int]
    """Images in each split: ``"train"``, ``"held_out"``, ``"test"``."""

    @property
    def top1(self) -> float:
        """Share of test images classified rightly."""
        return self.num_correct / self.sizes["test"]


@attrs.frozen
class ProbeScore:
    """A probe's score, as fractions, and the protocol it was measured by."""

    top1: float
    ci95: tuple[float, float]
    """Ends of Wilson's 95 % interval of ``top1``."""
    untrained_top1: float
    """The same probe on the trunk before training."""
    raw_pixels_top1: float
    """The same probe on the normalised pixels: flattened for a pooled probe, patches for one that reads tokens."""
    learning_rate: float | None
    """The rate chosen; None for a probe that chooses none."""
    layers: tuple[int, ...]
    """Blocks whose raw outputs were averaged; empty for the trunk's own output."""
    card: Mapping[str, Any]
    """The protocol as plain values: splits, grid, choices, layers, transform, attention, order, held-out rule."""


def check_probes(experiment: Experiment) -> None:
    """See whether the experiment's probes can be fitted and tested, before time is spent.

    Raises:
        InvalidValue: no labels, no class names, or other classes in the test source than in the training source; or
            two probes of one name.
        AimcoreError: a source is not there.
    """
    if experiment.probes:
        open_probe_images(experiment)


def probe_experiment(
    experiment: Experiment,
    trained_trunk: TrunkModule,
    untrained_trunk: TrunkModule,
    *,
    batch_size: int = 256,
    raw_pixels: MutableMapping[str, Outcome] | None = None,
) -> dict[str, ProbeScore]:
    """Score every probe of ``experiment``.

    Each trunk reads the images once for all probes. Every process of a distributed run must call this: each reads a
    share of the images, and all fit the same probes and get the same scores.

    Args:
        experiment: what was run; its ``data`` says which images, its ``engine.precision`` how the trunk computes.
        trained_trunk: the trunk after training.
        untrained_trunk: the same trunk as it was before.
        batch_size: images per forward.
        raw_pixels: a cache of raw-pixel outcomes that the caller keeps, empty at first: the experiments of a study
            that probe the same images share them.

    Returns:
        A score per probe name; empty if the experiment has no probes.

    Raises:
        InvalidValue: as :func:`check_probes`.
    """
    if not experiment.probes:
        return {}
    job = _Job(open_probe_images(experiment), batch_size)
    kinds = {p.name: FeatureKind(reads=p.reads, layers=p.layers_of(trained_trunk.depth)) for p in experiment.probes}
    trained = job.on_trunk(trained_trunk, kinds)
    untrained = job.on_trunk(untrained_trunk, kinds)
    raw = job.on_raw_pixels({} if raw_pixels is None else raw_pixels)
    scores = {}
    for probe in experiment.probes:
        outcomes = {"trained": trained[probe.name], "untrained": untrained[probe.name], "raw_pixels": raw[probe.name]}
        scores[probe.name] = _score(job.images, probe, kinds[probe.name], outcomes)
    return scores


def _score(images: ProbeImages, probe: Probe, kind: FeatureKind, outcomes: Mapping[str, Outcome]) -> ProbeScore:
    trained = outcomes["trained"]
    card = protocol_card(images.experiment, probe, kind, num_classes=images.num_classes, sizes=dict(trained.sizes))
    return ProbeScore(
        top1=trained.top1,
        ci95=wilson_interval(trained.num_correct, trained.sizes["test"]),
        untrained_top1=outcomes["untrained"].top1,
        raw_pixels_top1=outcomes["raw_pixels"].top1,
        learning_rate=trained.choice.get("learning_rate"),
        layers=kind.layers,
        card=card | {"choices": {name: dict(outcome.choice) for name, outcome in outcomes.items()}},
    )


@attrs.frozen(eq=False)
class _Job:
    """The probes of one experiment, on whatever features they are given."""

    images: ProbeImages
    batch_size: int

    def on_trunk(self, trunk: TrunkModule, kinds: Mapping[str, FeatureKind]) -> dict[str, Outcome]:
        """The outcome of every probe on the features of ``trunk``."""
        experiment = self.images.experiment
        train, test = (
            extract_all(
                trunk,
                self.images.batches(source, self.batch_size),
                tuple(dict.fromkeys(kinds.values())),
                objective=experiment.objective,
                attention=experiment.probe_attention,
                num_classes=self.images.num_classes,
                precision=experiment.engine.precision,
            )
            for source in (self.images.train, self.images.test)
        )
        return {probe.name: self._fit(probe, kinds[probe.name], train, test) for probe in experiment.probes}

    def on_raw_pixels(self, cache: MutableMapping[str, Outcome]) -> dict[str, Outcome]:
        """The outcome of every probe on the pixels; only what is not in ``cache`` is computed, and put there."""
        keys = {probe.name: self._key(probe) for probe in self.images.experiment.probes}
        missing = [probe for probe in self.images.experiment.probes if keys[probe.name] not in cache]
        if missing:
            reads = [probe.reads for probe in missing]
            train, test = (
                raw_pixel_features(
                    self.images.batches(source, self.batch_size), reads, num_classes=self.images.num_classes
                )
                for source in (self.images.train, self.images.test)
            )
            for probe in missing:
                cache[keys[probe.name]] = self._fit(probe, FeatureKind(reads=probe.reads, layers=()), train, test)
        return {name: cache[key] for name, key in keys.items()}

    def _fit(self, probe: Probe, kind: FeatureKind, train: Extracted, test: Extracted) -> Outcome:
        parts = hold_out(train.labels.tolist(), train.numbers.tolist(), HELD_OUT)
        kept, held_out = (torch.from_numpy(part) for part in parts)
        fitted = probe.fit(train.of(kind, kept), train.of(kind, held_out), self.images.experiment.seed)
        predicted = fitted.predict(test.features[kind]).cpu()
        return Outcome(
            num_correct=int((predicted == test.labels).sum()),
            choice=fitted.choice,
            sizes={"train": len(kept), "held_out": len(held_out), "test": len(test.labels)},
        )

    def _key(self, probe: Probe) -> str:
        """Everything that the outcome on raw pixels depends on."""
        experiment, data = self.images.experiment, self.images.experiment.data
        transform = (data.image_size, data.eval_crop, data.mean, data.std, experiment.trunk.patch_size)
        return repr((type(probe).__module__, probe, probe_sources(experiment), transform, experiment.seed))
