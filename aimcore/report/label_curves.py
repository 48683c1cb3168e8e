"""Accuracy against the number of labels: curves of probes on features, and of training with few labels.

Curves are compared point by point and draw by draw: curves that are compared have the same labelled images in the same
draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import attrs

from aimcore.report.style import Series
from aimcore.running.summary import ExperimentSummary, LabelPointSummary, ProbeSummary, Summary

Kind = Literal["trained", "untrained", "raw pixels"]
_PERCENT = 100


@attrs.frozen(eq=False)
class LabelCurve:
    """Accuracies by the number of labelled images per class."""

    series: Series
    kind: Kind
    draws: Mapping[float, tuple[float, ...]]
    """Accuracies as fractions by the number of images per class, ascending: one for each draw."""
    is_alone: bool = False
    """Whether a baseline needs no name of an experiment: it is the only one of its kind."""

    @property
    def name(self) -> str:
        """The experiment or curve, or the kind of a baseline."""
        if self.kind == "trained":
            return self.series.name
        if self.is_alone:
            return "untrained trunk" if self.kind == "untrained" else self.kind
        return f"{self.series.name}, {self.kind}"


@attrs.frozen(eq=False)
class Comparison:
    """One curve minus another one."""

    curve: str
    reference: str
    differences: Mapping[float, tuple[float, ...]]
    """Differences as fractions by the number of images per class: one for each draw that both curves have."""

    def numbers_where(self, sign: int) -> list[float]:
        """Return the numbers of images per class at which every draw has a difference of this sign."""
        return [number for number, values in self.differences.items() if min(sign * value for value in values) > 0]

    @property
    def sentence(self) -> str:
        """Describe where the curve is ahead, where it is behind, and by how much."""
        parts = []
        for word, sign in (("ahead of", 1), ("behind", -1)):
            if numbers := self.numbers_where(sign):
                sizes = ", ".join(f"{number:,.0f} ({self._points(number)})" for number in numbers)
                parts.append(f"{word} {self.reference} at {sizes}")
        decided = {*self.numbers_where(1), *self.numbers_where(-1)}
        if open_ones := [number for number in self.differences if number not in decided]:
            sizes = ", ".join(f"{number:,.0f} ({self._points(number)})" for number in open_ones)
            parts.append(f"neither ahead of nor behind {self.reference} in every draw at {sizes}")
        return f"{self.curve} is {'; '.join(parts)}"

    def _points(self, number: float) -> str:
        return f"{_PERCENT * fmean(self.differences[number]):+.1f}"


@attrs.frozen(eq=False)
class LabelGroup:
    """Curves of one figure: those of a probe, or of training with few labels."""

    title: str
    curves: tuple[LabelCurve, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def numbers(self) -> list[float]:
        """All numbers of images per class, ascending."""
        return sorted({number for curve in self.curves for number in curve.draws})

    @property
    def lines(self) -> tuple[str, ...]:
        """A sentence for each comparison."""
        return tuple(f"{self.title}: {one.sentence} labels per class." for one in self.comparisons)


def label_groups(summary: Summary) -> tuple[LabelGroup, ...]:
    """Return the curves of all probes that were fitted with few labels, and of training with few labels."""
    trained = () if summary.label_points is None else _trained_group(summary, summary.label_points)
    return (*trained, *_probe_groups(summary))


def _trained_group(summary: Summary, points: Sequence[LabelPointSummary]) -> Iterator[LabelGroup]:
    found: dict[str, dict[float, tuple[float, ...]]] = {point.curve: {} for point in points}
    for point in points:
        errors = [_error(summary.of(name), point.error) for name in point.experiments]
        if None not in errors:  # a point without one of its draws is left out: its mean would be of other images
            found[point.curve][point.per_class] = tuple(1 - error for error in errors if error is not None)
    curves = tuple(
        LabelCurve(Series(name, place), "trained", dict(sorted(draws.items())))
        for place, (name, draws) in enumerate(found.items())
        if draws
    )
    if curves:
        others = (_compared(curves[0], other) for other in curves[1:])
        yield LabelGroup("Training with few labels", curves, tuple(one for one in others if one.differences))


def _error(entry: ExperimentSummary | None, loss: str) -> float | None:
    if entry is None or entry.status != "finished":
        return None
    found = (entry.losses or {}).get(loss)
    return None if found is None else found.validation


def _probe_groups(summary: Summary) -> Iterator[LabelGroup]:
    by_probe: dict[str, dict[Series, tuple[ExperimentSummary, ProbeSummary]]] = {}
    for place, entry in enumerate(summary.experiments):
        for name, score in (entry.probes or {}).items():
            if score.few_labels:
                by_probe.setdefault(name, {})[Series(entry.name, place)] = (entry, score)
    for name, scores in by_probe.items():
        yield _probe_group(name, scores)


def _probe_group(name: str, scores: Mapping[Series, tuple[ExperimentSummary, ProbeSummary]]) -> LabelGroup:
    curves: list[LabelCurve] = []
    comparisons: list[Comparison] = []
    known: list[tuple[Kind, Mapping[float, tuple[float, ...]]]] = []
    for series, (entry, score) in scores.items():
        found = _curves(series, score, _all_labels(entry, name))
        trained, *baselines = found
        curves.append(trained)
        for baseline in baselines:
            comparisons.append(_compared(trained, baseline))
            if (baseline.kind, baseline.draws) not in known:  # experiments with equal images share a baseline
                known.append((baseline.kind, baseline.draws))
                curves.append(baseline)
    alone = {"untrained": len(scores) == 1, "raw pixels": [curve.kind for curve in curves].count("raw pixels") == 1}
    named = (attrs.evolve(curve, is_alone=alone.get(curve.kind, False)) for curve in curves)
    return LabelGroup(f"Probe {name}", tuple(named), tuple(comparisons))


def _curves(series: Series, score: ProbeSummary, all_labels: float | None) -> Iterator[LabelCurve]:
    """Yield the curve of the trained trunk, then those of its baselines; the last point has all labels."""
    points = sorted(score.few_labels or (), key=lambda point: point.per_class)
    found: tuple[tuple[Kind, float | None, list[tuple[float, ...] | None]], ...] = (
        ("trained", score.top1, [point.trained for point in points]),
        ("raw pixels", score.raw_pixels_top1, [point.raw_pixels for point in points]),
        ("untrained", score.untrained_top1, [point.untrained for point in points]),
    )
    for kind, whole, values in found:
        draws = {float(point.per_class): one for point, one in zip(points, values, strict=True) if one}
        if whole is not None and all_labels is not None and all_labels > max(draws, default=0):
            draws[all_labels] = (whole,)
        if draws:
            yield LabelCurve(series, kind, draws)


def _all_labels(entry: ExperimentSummary, probe: str) -> float | None:
    """Return the mean number of images per class in the training source, from the protocol card."""
    protocols = entry.extra.get("protocols")
    card: Any = protocols.get(probe) if isinstance(protocols, Mapping) else None
    images = card.get("train_images") if isinstance(card, Mapping) else None
    used = images.get("used") if isinstance(images, Mapping) else None
    classes = card.get("num_classes") if isinstance(card, Mapping) else None
    if not isinstance(used, int) or not isinstance(classes, int) or classes < 1:
        return None
    return used / classes


def _compared(curve: LabelCurve, reference: LabelCurve) -> Comparison:
    differences = {
        number: tuple(one - other for one, other in zip(values, reference.draws[number], strict=False))
        for number, values in curve.draws.items()
        if number in reference.draws
    }
    kind = reference.kind
    name = reference.series.name if kind == "trained" else "the untrained trunk" if kind == "untrained" else kind
    return Comparison(curve.name, name, differences)
