"""Which of a paper's comparisons a study reproduces: the paper's scores beside ours, and a verdict for every pair."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Literal

import attrs

from aimcore.report.pairing import PairedDifference, paired_differences, scores_of
from aimcore.report.seeds import Variant, variants
from aimcore.running.summary import Summary

Verdict = Literal["reproduced", "reversed", "open"]
"""``open``: the difference has no interval, or an interval that contains zero."""


@attrs.frozen
class Pair:
    """Two variants of a study whose scores differ in the paper."""

    score: str
    better: str
    """The variant with the higher score in the paper."""
    worse: str
    paper: float
    """Difference in the paper, as a fraction, above 0."""
    ours: PairedDifference
    """``better`` minus ``worse``."""

    @property
    def verdict(self) -> Verdict:
        """What our difference says about the paper's."""
        if not self.ours.is_clear:
            return "open"
        return "reproduced" if self.ours.mean > 0 else "reversed"


@attrs.frozen
class Row:
    """A variant with one of its scores, as fractions; means over seeds."""

    variant: str
    score: str
    paper: float | None
    ours: tuple[float, ...]
    """One score per seed."""
    untrained: float | None
    raw_pixels: float | None


@attrs.frozen
class Reproduction:
    """One study."""

    study: str
    source: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]

    def num(self, verdict: Verdict) -> int:
        """Return the number of pairs with this verdict."""
        return sum(pair.verdict == verdict for pair in self.pairs)


def reproduction_of(summary: Summary, out: Path) -> Reproduction:
    """Compare the finished runs of the study in ``out`` with the scores of the paper that it records."""
    found = variants(summary, out)
    return Reproduction(
        study=summary.study,
        source=summary.source or "",
        rows=tuple(row for variant in found for row in _rows(variant)),
        pairs=tuple(_pairs(found)),
    )


def _rows(variant: Variant) -> Iterator[Row]:
    runs, papers = tuple(variant.by_seed.values()), _papers(variant)
    for score in dict.fromkeys(name for run in runs for name in scores_of(run)):
        probes = [probe for run in runs if (probe := (run.probes or {}).get(score)) is not None]
        yield Row(
            variant=_plain(variant.name),
            score=score,
            paper=papers.get(score),
            ours=tuple(scores_of(run)[score] for run in runs if score in scores_of(run)),
            untrained=_mean([probe.untrained_top1 for probe in probes]),
            raw_pixels=_mean([probe.raw_pixels_top1 for probe in probes]),
        )


def _pairs(found: Sequence[Variant]) -> Iterator[Pair]:
    """Yield all pairs of variants, for each score in which the paper's differ."""
    for one, other in combinations(found, 2):
        for better, worse in ((one, other), (other, one)):
            gains = _gains(better, worse)
            if gains:  # the intervals of a difference take a while
                for difference in paired_differences((worse, better)):
                    if difference.score in gains:
                        names = (_plain(better.name), _plain(worse.name))
                        yield Pair(difference.score, *names, gains[difference.score], difference)


def _gains(better: Variant, worse: Variant) -> dict[str, float]:
    """Return by how much ``better`` is better in the paper, for each score in which it is."""
    ours, others = (_papers(variant) for variant in (better, worse))
    return {score: ours[score] - others[score] for score in ours if score in others and ours[score] > others[score]}


def _papers(variant: Variant) -> dict[str, float]:
    """Return the paper's scores of a variant."""
    return {score: value for run in variant.by_seed.values() for score, value in (run.paper or {}).items()}


def _plain(name: str) -> str:
    """Return the name of a variant without the part of its seed.

    >>> _plain("raster-seed-*"), _plain("raster-seed-0"), _plain("raster")
    ('raster', 'raster', 'raster')
    """
    return re.sub(r"-seed-(\*|\d+)$", "", name)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def markdown(found: Sequence[Reproduction], notes: Mapping[str, str]) -> str:
    """Return all studies as a page of Markdown.

    Args:
        found: the studies.
        notes: lines at the top, by their labels: what ran, on which machine.
    """
    lines = ["# Reproduction", "", *(f"- {label}: {text}" for label, text in notes.items()), "", _SUMMARY, ""]
    lines += ["| study | pairs | reproduced | reversed | open |", "|---|---|---|---|---|"]
    for one in found:
        counts = (one.num("reproduced"), one.num("reversed"), one.num("open"))
        lines.append(f"| {one.study} | {len(one.pairs)} | {' | '.join(map(str, counts))} |")
    for one in found:
        lines += ["", f"## {one.study}", "", one.source, "", *_table(one), *_pair_lines(one)]
    return "\n".join(lines) + "\n"


_SUMMARY = """\
A pair is two variants of a study whose scores differ in the paper. It is *reproduced* if the paper's better variant is
better here too, *reversed* if it is worse, and *open* if a 95 % interval of the paired difference contains zero: over
test images (bootstrap) or over seeds (Student's t). Scores are percentages: the mean over seeds, with its range."""


def _table(one: Reproduction) -> Iterator[str]:
    yield "| variant | score | paper | here | untrained | raw pixels |"
    yield "|---|---|---|---|---|---|"
    for row in one.rows:
        cells = (row.variant, row.score, _percent(row.paper), _spread(row.ours))
        yield f"| {' | '.join((*cells, _percent(row.untrained), _percent(row.raw_pixels)))} |"


def _pair_lines(one: Reproduction) -> Iterator[str]:
    if not one.pairs:
        yield from ("", "No pair: no two variants have a score here that differs in the paper.")
        return
    yield from ("", "| better in the paper | than | score | paper | here | over images | over seeds | verdict |")
    yield "|---|---|---|---|---|---|---|---|"
    for pair in one.pairs:
        numbers = (f"+{100 * pair.paper:.1f}", f"{100 * pair.ours.mean:+.1f}")
        intervals = (_interval(pair.ours.over_images), _interval(pair.ours.over_seeds))
        yield f"| {' | '.join((pair.better, pair.worse, pair.score, *numbers, *intervals, pair.verdict))} |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _spread(values: Sequence[float]) -> str:
    mean = _percent(fmean(values))
    return mean if len(values) == 1 else f"{mean} ({_percent(min(values))} to {_percent(max(values))})"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
