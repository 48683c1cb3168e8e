"""Tables on the terminal: measured values next to those of the paper. Readable without colour, at 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.report.caveats import caveats
from aimcore.report.label_section import print_labels
from aimcore.report.pairing import PairedDifference, paired_differences
from aimcore.report.scaling_table import print_scaling
from aimcore.report.seeds import SeedGroup, SeedScore, seed_groups, variants
from aimcore.running.summary import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary

_ABSENT = "-"
_WIDTH = 80
_SEPARATOR = 3
"""Columns between two cells."""
_NUMBERS = 37
"""Width of the columns of evaluations apart from names; the rest is for the names of runs and scores."""
_PROBES_NUMBERS = 51
"""The same width for the table of probes."""
_SEEDS_NUMBERS = 48
"""The same width for tables of runs that differ in their seed."""
_PAIRED_NUMBERS = 49
"""The same width for tables of paired differences."""


def print_summary(summary: Summary, console: Console, out: Path | None = None) -> None:
    """Print losses, scores of probes and evaluations, and their caveats.

    Args:
        summary: of the study.
        console: where to.
        out: the study's folder, whose recipes tell which runs differ in their seed alone; None does not look.
    """
    if any(entry.losses or entry.num_steps != 0 for entry in summary.experiments):  # else all are frozen baselines
        console.print(losses_table(summary))
    compared = () if out is None else variants(summary, out)
    width = console.width
    tables = (
        probes_table(summary, width),
        evaluations_table(summary, width),
        *not_run_tables(summary, width),
        seeds_table(seed_groups(compared), width),
        paired_table(paired_differences(compared), width),
    )
    for table in tables:
        if table.row_count:
            console.print(table)
    for caveat in caveats(summary):
        console.print(f"* {caveat}", highlight=False, markup=False)
    print_labels(summary, console)
    if summary.scaling is not None:
        print_scaling(summary, console)


def losses_table(summary: Summary) -> Table:
    """Return a table with a row per loss: training and validation loss, and the prefix length of the validation."""
    table = _table("Losses (training: mean of the last 100 steps)")
    table.add_column("experiment", overflow="fold")
    table.add_column("loss", overflow="fold")
    for heading in ("training", "validation", "prefix", "seconds"):
        table.add_column(heading, justify="right")
    for experiment in summary.experiments:
        prefix = "none" if experiment.validation_prefix is None else str(experiment.validation_prefix)
        seconds = _ABSENT if experiment.seconds is None else f"{experiment.seconds:.0f}"
        for name, loss in (experiment.losses or {}).items():
            numbers = (_loss(loss.train_last_100), _loss(loss.validation), prefix, seconds)
            table.add_row(experiment.name, name, *numbers)
        if not experiment.losses:
            table.add_row(experiment.name, *[_ABSENT] * 5)
    return table


def probes_table(summary: Summary, width: int = _WIDTH) -> Table:
    """Return a table with a row per probe: its score, those of the untrained trunk and raw pixels, the paper's."""
    table = _table("Top-1 accuracy on the frozen trunk, % (± half the 95 % interval)")
    table.add_column("experiment", overflow="fold")
    table.add_column("probe", overflow="fold")
    for heading in ("trained", "untrained", "raw pixels", "paper"):
        table.add_column(heading, justify="right")
    entries = list(_probes(summary))
    fitted = _fitting([(experiment.name, name) for experiment, name, _ in entries], width - _PROBES_NUMBERS)
    for names, (experiment, name, probe) in zip(fitted, entries, strict=True):
        table.add_row(
            *names,
            _percent(probe.top1) + _half_interval(probe),
            _percent(probe.untrained_top1),
            _percent(probe.raw_pixels_top1),
            _percent((experiment.paper or {}).get(name)),
        )
    return table


def evaluations_table(summary: Summary, width: int = _WIDTH) -> Table:
    """Return a table with a row per score of an evaluation, with chance and the paper's score."""
    table = _table("What the objective can do, % (± half the 95 % interval)")
    table.add_column("experiment", overflow="fold")
    table.add_column("score", overflow="fold")
    for heading in ("ours", "chance", "paper"):
        table.add_column(heading, justify="right")
    entries = list(_evaluations(summary))
    fitted = _fitting([(experiment.name, name) for experiment, name, _ in entries], width - _NUMBERS)
    for names, (experiment, name, found) in zip(fitted, entries, strict=True):
        ours = _percent(found.value) + _half_interval(found)
        table.add_row(*names, ours, _percent(found.chance), _percent((experiment.paper or {}).get(name)))
    return table


def not_run_tables(summary: Summary, width: int = _WIDTH) -> Iterator[Table]:
    """Yield tables of the paper's scores that nothing here measures: a row per experiment, or row of the paper."""
    entries = summary.not_run
    left = list(dict.fromkeys(name for scores in entries.values() for name in scores))
    title: str | None = "Not run: the paper's scores, %"
    while left:
        room = width - max(map(len, entries)) - 2
        columns = [left.pop(0)]
        while left and sum(_SEPARATOR + max(len(name), 5) for name in (*columns, left[0])) <= room:
            columns.append(left.pop(0))
        table = _table(title)
        table.add_column("experiment", overflow="fold")
        for name in columns:
            table.add_column(name, justify="right", overflow="fold")
        for row, scores in entries.items():
            table.add_row(row, *(_percent(scores.get(name)) for name in columns))
        yield table
        title = None


def seeds_table(groups: Sequence[SeedGroup], width: int = _WIDTH) -> Table:
    """Return a table with a row per score of runs that differ only in their seed."""
    table = _table("Mean, standard deviation and range over n seeds, %")
    table.add_column("experiments", overflow="fold")
    table.add_column("score", overflow="fold")
    for heading in ("n", "mean", "sd", "range", "x chance"):
        table.add_column(heading, justify="right")
    entries = [(group, score) for group in groups for score in group.scores]
    fitted = _fitting([(group.name, score.name) for group, score in entries], width - _SEEDS_NUMBERS)
    for names, (_, score) in zip(fitted, entries, strict=True):
        numbers = (_percent(score.mean), _percent(score.spread), _range(score), _times(score))
        table.add_row(*names, str(len(score.values)), *numbers)
    return table


def paired_table(found: Sequence[PairedDifference], width: int = _WIDTH) -> Table:
    """Return a table with a row per paired difference between two variants, in percentage points."""
    table = _table("Paired differences over n seeds, points (95 % intervals)")
    table.add_column("variants", overflow="fold")
    table.add_column("score", overflow="fold")
    for heading in ("n", "difference", "over images", "over seeds"):
        table.add_column(heading, justify="right")
    names = [(f"{one.variant} - {one.reference}", one.score) for one in found]
    for (pair, score), one in zip(_fitting(names, width - _PAIRED_NUMBERS), found, strict=True):
        mark = " *" if one.is_clear else "  "
        intervals = (_points_interval(one.over_images), _points_interval(one.over_seeds))
        table.add_row(pair, score, str(len(one.by_seed)), _points(one.mean) + mark, *intervals)
    return table


def _fitting(names: Sequence[tuple[str, str]], room: int) -> Iterator[tuple[str, str]]:
    """Fit names of runs and scores into two columns with a total width of ``room``; runs get up to half of it."""
    run = min(max((len(one) for one, _ in names), default=0), room // 2)
    return ((broken(one, run), broken(other, room - run)) for one, other in names)


def broken(name: str, width: int) -> str:
    """Break ``name`` into lines of at most ``width`` characters, after ``/``, ``_``, ``-`` or a space if possible."""
    lines = [""]
    for part in re.findall(r"[^/_\- ]*[/_\- ]|[^/_\- ]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _probes(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, ProbeSummary]]:
    for experiment in summary.experiments:
        for name, probe in (experiment.probes or {}).items():
            yield experiment, name, probe


def _evaluations(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, EvaluationSummary]]:
    for experiment in summary.experiments:
        yield from ((experiment, name, found) for name, found in (experiment.evaluations or {}).items())


def _table(title: str | None) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)


def _loss(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f}"


def _half_interval(score: ProbeSummary | EvaluationSummary) -> str:
    return "" if score.interval95 is None else f" ± {50 * (score.interval95[1] - score.interval95[0]):.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _points_interval(interval: tuple[float, float] | None) -> str:
    return _ABSENT if interval is None else f"{_points(interval[0])} {_points(interval[1])}"


def _range(score: SeedScore) -> str:
    return f"{_percent(min(score.values))}–{_percent(max(score.values))}"


def _times(score: SeedScore) -> str:
    return _ABSENT if score.times_chance is None else f"{score.times_chance:.1f}"
