"""All contents of the report's page as values; :mod:`aimcore.report.page` puts them into HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
from loguru import logger

from aimcore.contracts.errors import AimcoreError
from aimcore.io.run_folder import SAMPLES_FILE, RunFolder
from aimcore.recipe.difference import DifferingField, differing_fields
from aimcore.report import pictures, plots
from aimcore.report.caveats import caveats
from aimcore.report.comparing import shared_and_own
from aimcore.report.label_section import LabelSection, labels_shown
from aimcore.report.native_section import NativeSection, native_shown
from aimcore.report.pairing import PairedDifference, paired_differences
from aimcore.report.run_records import Absence, RunFiles
from aimcore.report.sample_files import SampleArrays
from aimcore.report.sample_making import FAILURES, samples_of
from aimcore.report.scaling_content import ScalingSection, scaling_shown
from aimcore.report.seeds import SeedGroup, seed_groups, variants
from aimcore.report.style import DrawnFigure, Series, slugs
from aimcore.running.summary import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary

MAX_PICTURED = 8
"""Number of experiments of a study for which images are drawn: each requires loading a model."""

T = TypeVar("T")


@attrs.frozen(eq=False)
class FigureGroup:
    """Figures of one kind, and why they are missing for some experiments."""

    figures: tuple[DrawnFigure, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    """Experiment and reason."""
    left_out: tuple[str, ...] = ()
    """Experiments beyond the number that is drawn."""
    series: tuple[Series, ...] = ()
    """The experiments in the figures, if all figures share them."""

    @property
    def missing_by_reason(self) -> Mapping[str, tuple[str, ...]]:
        """The experiments that lack a figure for the same reason, by the reason."""
        reasons = dict.fromkeys(reason for _, reason in self.missing)
        return {reason: tuple(name for name, other in self.missing if other == reason) for reason in reasons}


_PROTOCOLS = {"Probe": "protocols", "Evaluation": "evaluation_protocols"}
"""Where an experiment's summary has the protocols of each kind."""


@attrs.frozen(eq=False)
class Card:
    """The protocol of a probe or an evaluation: what all experiments share, and what differs."""

    kind: str
    name: str
    anchor: str
    """Target of links to it."""
    shared: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]


@attrs.frozen(eq=False)
class Recipe:
    """The recipe file of an experiment."""

    name: str
    values: Mapping[str, Any] | Absence


@attrs.frozen
class CodeUse:
    """How the codes that an experiment predicts are used in validation images."""

    name: str
    num_codes: int
    num_used: int
    num_patches: int
    entropy: float
    """Of the marginal distribution of codes, in nats: the loss of a model that knows their frequencies only."""
    perplexity: float
    """exp(entropy)."""


@attrs.frozen(eq=False, kw_only=True)
class Content:
    """The contents of the page."""

    summary: Summary
    folder: str
    series: tuple[Series, ...]
    caveats: tuple[str, ...]
    scores: tuple[DrawnFigure, ...]
    groups: tuple[SeedGroup, ...]
    """Groups of runs that differ only in their seed."""
    paired: tuple[PairedDifference, ...]
    """Paired differences between the variants of the study."""
    training: FigureGroup
    chunks: FigureGroup
    labels: LabelSection | None
    """None if nothing was measured with few labels."""
    scaling: ScalingSection | None
    """None if the study is not a scaling study."""
    native: NativeSection | None
    """None if no experiment is trained at native resolution."""
    orders: FigureGroup
    reconstructions: FigureGroup
    attention: FigureGroup
    attention_kinds: tuple[str, ...]
    codes: tuple[CodeUse, ...]
    uses_truth: bool
    own_orders: tuple[str, ...]
    """Experiments in which every sample has a reading order of its own."""
    cards: tuple[Card, ...]
    recipes: tuple[Recipe, ...]
    differences: tuple[DifferingField, ...]
    errors: Mapping[str, str]
    versions: Mapping[str, str]

    def series_of(self, name: str) -> Series:
        """Return the look of the experiment called ``name``."""
        return next(one for one in self.series if one.name == name)

    def anchor_of(self, kind: str, score: str) -> str | None:
        """Return the anchor of the protocol card of a probe, or of the evaluation of a score."""
        of_kind = [card for card in self.cards if card.kind == kind]
        found = [card.anchor for card in of_kind if score == card.name or score.startswith(f"{card.name}/")]
        return found[-1] if found else None


def content_of(summary: Summary, runs: Sequence[RunFiles], out: Path, images: Path) -> Content:
    """Read the files in ``out``, and draw the figures.

    Args:
        summary: the study's summary.
        runs: the files of its experiments, in the same order.
        out: the study's folder.
        images: folder of the figures' PNGs.
    """
    series = tuple(Series(run.name, number) for number, run in enumerate(runs))
    paired = tuple(zip(series, runs, strict=True))
    samples = {run.name: _samples(run) for run in runs[:MAX_PICTURED]}
    left_out = tuple(run.name for run in runs[MAX_PICTURED:])
    files = slugs([run.name for run in runs])
    pictured = partial(_pictures, samples=samples, left_out=left_out, files=files, images=images)
    recipes = tuple(Recipe(run.name, run.recipe()) for run in runs)
    known = [one.values for one in recipes if isinstance(one.values, Mapping)]
    pictured_samples = [(name, one) for name, one in samples.items() if isinstance(one, SampleArrays)]
    drawn = [one for one in samples.values() if isinstance(one, SampleArrays)]
    compared = variants(summary, out)
    return Content(
        summary=summary,
        folder=out.resolve().name,
        series=series,
        caveats=tuple(caveats(summary)),
        scores=tuple(_scores(summary, series, images)),
        groups=seed_groups(compared),
        paired=paired_differences(compared),
        training=_by_loss("training", plots.draw_training, {one: run.curves() for one, run in paired}, images),
        chunks=_by_loss("chunks", plots.draw_chunks, {one: run.chunks() for one, run in paired}, images),
        labels=labels_shown(summary, images),
        scaling=scaling_shown(summary, images),
        native=native_shown(dict(paired), files, images),
        orders=pictured("order", "order_N", pictures.draw_order),
        reconstructions=pictured("predictions", "predicted_BHWC", pictures.draw_predictions),
        attention=pictured("attention", "attention_BQN", pictures.draw_attention),
        attention_kinds=tuple(dict.fromkeys(one.attention_kind for one in drawn if one.attention_kind)),
        codes=tuple(_code_use(name, one) for name, one in pictured_samples if one.code_counts_K is not None),
        uses_truth=any(one.uses_truth for one in drawn),
        own_orders=tuple(n for n, one in samples.items() if isinstance(one, SampleArrays) and one.order_is_own),
        cards=tuple(card for kind in _PROTOCOLS for card in _cards(kind, summary.experiments)),
        recipes=recipes,
        differences=tuple(
            differing_fields([_without_name(one) for one in known] if len(known) == len(recipes) else ())
        ),
        errors={run.name: error for run in runs if (error := run.error()) is not None},
        versions=_versions(known),
    )


def _code_use(name: str, samples: SampleArrays) -> CodeUse:
    counts_K = samples.code_counts_K
    assert counts_K is not None
    share_K = counts_K[counts_K > 0] / counts_K.sum()
    entropy = -float((share_K * np.log(share_K)).sum())
    return CodeUse(name, len(counts_K), int((counts_K > 0).sum()), int(counts_K.sum()), entropy, math.exp(entropy))


def _scores(summary: Summary, series: Sequence[Series], images: Path) -> Iterator[DrawnFigure]:
    found: dict[str, dict[Series, ProbeSummary]] = {}
    for one, entry in zip(series, summary.experiments, strict=True):
        for probe, score in (entry.probes or {}).items():
            found.setdefault(probe, {})[one] = score
    names = slugs(list(found))
    for probe, scores in found.items():
        papers = {entry.name: (entry.paper or {}).get(probe) for entry in summary.experiments}
        paper = {name: score for name, score in papers.items() if score is not None}
        yield plots.draw_scores(probe, scores, paper, f"scores-{names[probe]}", images)
        candidates = {one: score.candidates for one, score in scores.items() if score.candidates}
        if candidates:
            yield plots.draw_layers(probe, candidates, f"layers-{names[probe]}", images)


def _by_loss(
    kind: str, draw: Callable[..., DrawnFigure], found: Mapping[Series, Mapping[str, T] | Absence], images: Path
) -> FigureGroup:
    """Return one figure per loss, with all experiments that have it."""
    by_loss: dict[str, dict[Series, T]] = {}
    missing = []
    for one, losses in found.items():
        if isinstance(losses, Absence):
            missing.append((one.name, losses.reason))
            continue
        for loss, values in losses.items():
            by_loss.setdefault(loss, {})[one] = values
    names = slugs(list(by_loss))
    figures = tuple(draw(loss, values, f"{kind}-{names[loss]}", images) for loss, values in by_loss.items())
    shown = {one: None for values in by_loss.values() for one in values}
    return FigureGroup(figures, tuple(missing), series=tuple(shown))


def _pictures(
    part: str,
    field: str,
    draw: Callable[[SampleArrays, str, str, Path], DrawnFigure],
    *,
    samples: Mapping[str, SampleArrays | Absence],
    left_out: tuple[str, ...],
    files: Mapping[str, str],
    images: Path,
) -> FigureGroup:
    """Return one figure per experiment."""
    figures, missing = [], []
    for name, one in samples.items():
        if isinstance(one, Absence):
            missing.append((name, one.reason))
        elif getattr(one, field) is None:
            missing.append((name, one.absent.get(part, f"{SAMPLES_FILE} does not contain it")))
        else:
            figures.append(draw(one, name, f"{part}-{files[name]}", images))
    return FigureGroup(tuple(figures), tuple(missing), left_out)


def _samples(run: RunFiles) -> SampleArrays | Absence:
    if isinstance(run.folder, Absence):
        return run.folder
    recipe = run.recipe()
    if isinstance(recipe, Absence) and RunFolder(run.folder).recipe.is_symlink():
        return recipe  # a link out of the folder: an error could show content of its target
    try:
        return samples_of(run.folder)
    except AimcoreError as error:
        return Absence(str(error))
    except FAILURES as error:
        logger.opt(exception=error).error("{}: no pictures", run.name)
        return Absence(f"{type(error).__name__}: {error}")


def _cards(kind: str, experiments: Sequence[ExperimentSummary]) -> Iterator[Card]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in experiments:
        protocols = entry.extra.get(_PROTOCOLS[kind])
        for measure, card in protocols.items() if isinstance(protocols, Mapping) else ():
            if isinstance(card, Mapping):
                found.setdefault(str(measure), {})[entry.name] = card
    anchors = slugs(list(found))
    for measure, cards in found.items():
        shared, own = shared_and_own(cards)
        anchor = f"{kind.lower()}-{anchors[measure]}"
        yield Card(kind, measure, anchor, shared, {name: values for name, values in own.items() if values})


def _without_name(recipe: Mapping[str, Any]) -> Any:
    experiment = recipe.get("experiment")
    if not isinstance(experiment, Mapping):
        return experiment
    return {key: value for key, value in experiment.items() if key != "name"}


def _versions(recipes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions of aimcore and of each plugin that wrote the recipes; several if they differ."""
    found: dict[str, dict[str, None]] = {}
    for recipe in recipes:
        plugins = recipe.get("plugins")
        own = {"aimcore": recipe.get("aimcore")}
        for name, entry in plugins.items() if isinstance(plugins, Mapping) else ():
            own[str(name)] = entry.get("version") if isinstance(entry, Mapping) else None
        for name, version in own.items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def half_interval(score: ProbeSummary | EvaluationSummary) -> float | None:
    """Return half the width of a score's 95 % interval, or None."""
    return None if score.interval95 is None else (score.interval95[1] - score.interval95[0]) / 2
