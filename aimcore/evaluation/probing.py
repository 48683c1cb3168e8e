"""Probes of an experiment: fitted on features of the trained trunk, of the untrained trunk, and on raw pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from operator import methodcaller
from typing import Any

import attrs
import torch
from loguru import logger
from torch import Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.probes import Probe
from aimcore.contracts.sources import OpenSource, Source
from aimcore.contracts.trunks import TrunkModule
from aimcore.engine.distributed import on_every_rank
from aimcore.evaluation.augmented_features import LiveFeatures, LiveTable
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.evaluation.feature_provider import FeatureProvider, FeatureRequest
from aimcore.evaluation.feature_sources import FeatureSource, FrozenTrunk, RawPixels
from aimcore.evaluation.feature_tables import FeatureKind, Table
from aimcore.evaluation.few_labels import TopByLabels, drawn_subset, split_subset
from aimcore.evaluation.intervals import wilson_interval
from aimcore.evaluation.layer_sweep import LayerOutcome, batch_size_of, can_be_swept, layer_store, swept
from aimcore.evaluation.outcomes import Outcome, fitted_outcome
from aimcore.evaluation.probe_images import ProbeImages, chosen_numbers, open_probe_images, probe_sources
from aimcore.evaluation.probe_sizes import probe_sizes
from aimcore.evaluation.protocol_cards import protocol_card
from aimcore.experiment import Experiment


@attrs.frozen
class ProbeScore:
    """A probe's score, as fractions, and its protocol."""

    top1: float
    ci95: tuple[float, float]
    """Ends of Wilson's 95 % interval of ``top1``."""
    untrained_top1: float | None
    """Score on the trunk with fresh weights; None at additional sizes, because it would double the cost of probing, and
    if the probed trunk itself has fresh weights."""
    raw_pixels_top1: float | None
    """Score on the normalised pixels: flattened for a pooled probe, patches with positions for a probe of tokens; None
    at additional sizes, and for a probe of extra tokens."""
    learning_rate: float | None
    """The chosen learning rate; None for a probe that does not choose one."""
    layers: tuple[int, ...]
    """Blocks whose raw outputs were averaged; empty for the trunk's final output."""
    unreadable: Mapping[str, int]
    """Number of unreadable images, among the ``"train"`` and ``"test"`` images that the probe requested."""
    card: Mapping[str, Any]
    """The protocol as plain values: splits, grid, choices, layers, transform, attention, order, held-out rule."""
    right_n: Tensor = attrs.field(eq=attrs.cmp_using(eq=torch.equal))
    """Whether each test image was classified correctly, ``[n]`` bool, ascending by number."""
    test_images: str
    """Digest of the test source and of the numbers of its readable images: scores with equal digests can be paired."""
    by_labels: Mapping[str, TopByLabels]
    """Accuracies with few labels, for ``"trained"``, ``"untrained"`` and ``"raw_pixels"``."""
    baselines: Mapping[str, Tensor] = attrs.field(factory=dict, eq=False)
    """Whether ``"untrained"`` and ``"raw_pixels"`` classify each test image correctly, as ``right_n``."""
    candidates: tuple[LayerOutcome, ...] = ()
    """The blocks or windows of blocks that the layers were chosen from; empty if nothing was chosen."""


def check_probes(experiment: Experiment, opened: Callable[[Source], OpenSource] = methodcaller("open")) -> None:
    """Check that the experiment's probes can be fitted and tested. No features are computed.

    Args:
        experiment: the experiment with the probes.
        opened: opens a source, or returns the opened source if it is open already.

    Raises:
        InvalidValue: labels or class names are missing; the test source has other classes than the training source; or
            a probe reads blocks that the trunk does not have.
        AimcoreError: a source cannot be opened.
    """
    if not experiment.probes:
        return
    open_probe_images(experiment, opened)
    with torch.device("meta"):  # for its depth: nothing is computed or held
        depth = experiment.trunk.build().depth
    for place, probe in enumerate(experiment.probes):
        try:
            FeatureKind.of(probe, depth)
        except InvalidValue as error:
            problems = [(f"probes.{place}.{field}", text) for field, text in error.problems]
            raise InvalidValue(f"Experiment {experiment.name!r}", problems) from None


def probe_experiment(
    experiment: Experiment,
    trained_trunk: TrunkModule,
    untrained_trunk: TrunkModule | None,
    *,
    batch_size: int = 128,
    raw_pixels: MutableMapping[str, Outcome] | None = None,
    cache_url: str | None = None,
) -> dict[str, ProbeScore]:
    """Score every probe of ``experiment``, at its image size and at its additional probe sizes.

    Each trunk reads the images once for all probes. Every process of a distributed run must call this: each reads a
    share of the images, and all fit the same probes and get the same scores.

    Args:
        experiment: the experiment; its ``data`` supply the images, and trunks compute in its ``engine.precision``.
        trained_trunk: the trunk after training.
        untrained_trunk: the same trunk with fresh weights; None if that is the trained one.
        batch_size: images per process and forward pass.
        raw_pixels: a cache of outcomes on raw pixels, empty at first, which the caller passes to all experiments of a
            study: those that probe the same images share the outcomes.
        cache_url: folder or fsspec URL of the feature cache, see :mod:`aimcore.evaluation.feature_cache`. Features that
            do not fit in memory are streamed from it. None keeps features in memory during the call.

    Returns:
        A score per probe name, ``"linear"`` at the experiment's image size and ``"linear@448"`` or ``"linear@native"``
        at additional sizes; with ``probe_every_layer`` also ``"linear@best_layer"``, ``"linear@last_six"`` and
        ``"linear@best_window"``; empty if the experiment has no probes.

    Raises:
        InvalidValue: as for :func:`check_probes`, or the URL cannot be used.
    """
    if not experiment.probes:
        return {}
    cache = None if cache_url is None else FeatureCache(cache_url)
    images = on_every_rank(lambda: open_probe_images(experiment))
    trained = FrozenTrunk(trained_trunk, experiment)
    kinds = {probe.name: FeatureKind.of(probe, trained_trunk.depth) for probe in experiment.probes}
    scores: dict[str, ProbeScore] = {}
    for size in probe_sizes(experiment):
        job = _Job(FeatureProvider(images.at(size), batch_size, cache))
        by_source = {"trained": job.on_trunk(trained, kinds, "trained" if experiment.num_steps else "frozen")}
        if size.is_own and untrained_trunk is not None:
            by_source["untrained"] = job.on_trunk(FrozenTrunk(untrained_trunk, experiment), kinds, "untrained")
        if size.is_own:
            by_source["raw_pixels"] = job.on_raw_pixels({} if raw_pixels is None else raw_pixels)
        for probe in experiment.probes:
            outcomes = {name: found[probe.name] for name, found in by_source.items() if probe.name in found}
            scores[probe.name + size.suffix] = _score(job.images, probe, kinds[probe.name], outcomes)
    if experiment.probe_every_layer:
        scores |= _every_layer(FeatureProvider(images, batch_size, cache), trained)
    return scores


def _every_layer(provider: FeatureProvider, trunk: FrozenTrunk) -> dict[str, ProbeScore]:
    """Return the scores of the best block, of the last six, and of the best window, for every probe that can choose."""
    images = provider.images
    probes = {probe.name: probe for probe in images.experiment.probes if can_be_swept(probe, trunk.trunk.depth)}
    if not probes:
        text = "{}: probe_every_layer adds no score: this trunk gives the output of one block alone"
        logger.warning(text, images.experiment.name)
        return {}
    scores: dict[str, ProbeScore] = {}
    with layer_store(provider.cache) as store:
        provider = attrs.evolve(provider, cache=store, batch_size=batch_size_of(provider, trunk))
        for name, sweep in swept(provider, trunk, list(probes.values())).items():
            for chosen, (one, candidates) in sweep.chosen().items():
                kind = FeatureKind(reads=probes[name].reads, layers=one.layers)
                score = _score(images, probes[name], kind, {"trained": one.outcome}, candidates)
                scores[f"{name}@{chosen}"] = score
    return scores


def is_untrained(experiment: Experiment) -> bool:
    """Return whether the trunk that ``experiment`` probes has fresh weights."""
    return experiment.num_steps == 0 and not experiment.weights_by_path


def _score(
    images: ProbeImages,
    probe: Probe,
    kind: FeatureKind,
    outcomes: Mapping[str, Outcome],
    candidates: tuple[LayerOutcome, ...] = (),
) -> ProbeScore:
    trained, untrained, pixels = (outcomes.get(name) for name in ("trained", "untrained", "raw_pixels"))
    assert trained is not None
    return ProbeScore(
        top1=trained.top1,
        ci95=wilson_interval(trained.num_correct, trained.sizes["test"]),
        untrained_top1=None if untrained is None else untrained.top1,
        raw_pixels_top1=None if pixels is None else pixels.top1,
        learning_rate=trained.choice.get("learning_rate"),
        layers=kind.layers,
        unreadable=_unreadable(images, probe, trained.sizes),
        card=protocol_card(
            images,
            probe,
            kind,
            sizes=trained.sizes,
            choices={name: outcome.choice for name, outcome in outcomes.items()},
            num_layer_candidates=len(candidates),
        ),
        right_n=trained.right_n,
        test_images=trained.test_images,
        by_labels={name: outcome.by_labels for name, outcome in outcomes.items() if outcome.by_labels},
        baselines={name: outcome.right_n for name, outcome in outcomes.items() if name != "trained"},
        candidates=candidates,
    )


def _unreadable(images: ProbeImages, probe: Probe, sizes: Mapping[str, int]) -> dict[str, int]:
    chosen = chosen_numbers(len(images.train), probe.max_train_images)
    num_train = len(images.train) if chosen is None else len(chosen)
    return {"train": num_train - sizes["train"] - sizes["held_out"], "test": len(images.test) - sizes["test"]}


@attrs.frozen(eq=False)
class _Job:
    """Fits the probes of one experiment on features of any source."""

    provider: FeatureProvider

    @property
    def images(self) -> ProbeImages:
        """The images for probes."""
        return self.provider.images

    def on_trunk(self, trunk: FrozenTrunk, kinds: Mapping[str, FeatureKind], which: str) -> dict[str, Outcome]:
        """Return the outcome of every probe on features of ``trunk``, ``which`` is trained, frozen or untrained."""
        wanted = {probe: kinds[probe.name] for probe in self.images.experiment.probes}
        return self._outcomes(trunk, wanted, f"the {which} trunk")

    def on_raw_pixels(self, known: MutableMapping[str, Outcome]) -> dict[str, Outcome]:
        """Return the outcome of every probe on raw pixels; compute those that ``known`` lacks, and add them to it."""
        experiment = self.images.experiment
        keys = {probe.name: self._key(probe) for probe in experiment.probes if probe.reads != "extra"}
        missing = [probe for probe in experiment.probes if probe.name in keys and keys[probe.name] not in known]
        kinds = {probe: FeatureKind(reads=probe.reads, layers=()) for probe in missing}
        for name, outcome in self._outcomes(RawPixels(experiment.trunk.patch_size), kinds, "raw pixels").items():
            known[keys[name]] = outcome
        return {name: known[key] for name, key in keys.items()}

    def _outcomes(
        self, feature_source: FeatureSource, kinds: Mapping[Probe, FeatureKind], what: str
    ) -> dict[str, Outcome]:
        wanted = {probe: FeatureRequest(kind, probe.max_train_images) for probe, kind in kinds.items()}
        if not wanted:
            return {}
        stored = [each for probe, each in wanted.items() if probe.augmentation is None]
        live = {probe: each for probe, each in wanted.items() if probe.augmentation is not None}
        train, test = self.provider.train_and_test(feature_source, stored, list(live.values()))
        tables = {probe: train[each] for probe, each in wanted.items() if probe not in live}
        tables |= {probe: self._live(feature_source, probe, each.kind) for probe, each in live.items()}
        outcomes = {}
        for probe, each in wanted.items():
            found = outcomes[probe.name] = self._fit(probe, tables[probe], test[each])
            name = probe.name + self.images.size.suffix
            text = "{}: probe {} on {}: top-1 {:.1%} of {} test images"
            logger.info(text, self.images.experiment.name, name, what, found.top1, found.sizes["test"])
        return outcomes

    def _live(self, feature_source: FeatureSource, probe: Probe, kind: FeatureKind) -> Table:
        """Return the training images of a probe that augments them."""
        assert probe.augmentation is not None
        features = LiveFeatures(self.images, feature_source, kind, self.provider.batch_size)
        return LiveTable(features, probe.augmentation, probe.max_train_images)

    def _fit(self, probe: Probe, train: Table, test: Table) -> Outcome:
        outcome, *_ = fitted_outcome(self.images, probe, train, test)
        by_labels = {number: self._with_few(probe, train, test, number) for number in self._labels_per_class}
        return attrs.evolve(outcome, by_labels=by_labels)

    @property
    def _labels_per_class(self) -> tuple[int, ...]:
        return self.images.experiment.probe_labels_per_class if self.images.size.is_own else ()

    def _with_few(self, probe: Probe, train: Table, test: Table, per_class: int) -> tuple[float, ...]:
        """Return the accuracy of each draw of ``per_class`` images of each class."""
        experiment, found = self.images.experiment, []
        for draw in range(experiment.probe_label_draws):
            chosen = drawn_subset(train.labels, train.numbers, per_class, draw)
            parts = split_subset(train.labels, train.numbers, chosen) if probe.holds_out else (chosen, chosen[:0])
            fitted = train.fit(probe, *parts, experiment.seed)
            found.append(int(test.correct(fitted).sum()) / len(test.labels))
        return tuple(found)

    def _key(self, probe: Probe) -> str:
        """Return a text of everything that the outcome on raw pixels depends on."""
        experiment, data = self.images.experiment, self.images.experiment.data
        transform = (data.image_size, data.eval_crop, data.mean, data.std, experiment.trunk.patch_size)
        few = (experiment.probe_labels_per_class, experiment.probe_label_draws)
        return repr((type(probe).__module__, probe, probe_sources(experiment), transform, experiment.seed, few))
