"""Tables on the terminal: what a study found beside what the paper reports. Readable without colour, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from aimcore.report.summary import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary

_ABSENT = "-"
_NOT_RUN = "not run"


def print_summary(summary: Summary, console: Console) -> None:
    """Print losses, scores of probes and evaluations, and in words what the scores must not hide."""
    console.print(losses_table(summary))
    for table in (probes_table(summary), evaluations_table(summary)):
        if table.row_count:
            console.print(table)
    for remark in remarks(summary):
        console.print(f"* {remark}", highlight=False, markup=False)
    if summary.scaling is not None:
        from aimcore.report.scaling_table import print_scaling  # here, because it loads matplotlib

        print_scaling(summary, console)


def losses_table(summary: Summary) -> Table:
    """One row per loss: training and validation loss, and the prefix length that validation used."""
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


def probes_table(summary: Summary) -> Table:
    """One row per probe: its score, the same probe on the untrained trunk and on raw pixels, and the paper's score."""
    table = _table("Top-1 accuracy on the frozen trunk, % (± half the 95 % interval)")
    table.add_column("experiment", overflow="fold")
    table.add_column("probe", overflow="fold")
    for heading in ("trained", "untrained", "raw pixels", "paper"):
        table.add_column(heading, justify="right")
    for experiment, name, probe in _probes(summary):
        table.add_row(
            experiment.name,
            name,
            _percent(probe.top1) + _half_interval(probe),
            _percent(probe.untrained_top1),
            _percent(probe.raw_pixels_top1),
            _percent((experiment.paper or {}).get(name)),
        )
    return table


def evaluations_table(summary: Summary) -> Table:
    """One row per score of an evaluation, with chance and the paper's; and one per score that is the paper's alone."""
    table = _table("What the objective can do, % (± half the 95 % interval)")
    table.add_column("experiment", overflow="fold")
    table.add_column("score", overflow="fold")
    for heading in ("ours", "chance", "paper"):
        table.add_column(heading, justify="right")
    for experiment, name, found in _evaluations(summary):
        table.add_row(
            experiment.name,
            name,
            _NOT_RUN if found is None else _percent(found.value) + _half_interval(found),
            _percent(None if found is None else found.chance),
            _percent((experiment.paper or {}).get(name)),
        )
    return table


def remarks(summary: Summary) -> Iterator[str]:
    """Yield in words where training did not help, where raw pixels or guessing win, and what did not finish."""
    probed = list(_probes(summary))
    evaluated = [(one, name, found) for one, name, found in _evaluations(summary) if found is not None]
    yield from _remark(
        "The trained trunk does not beat the untrained one",
        [(one, name, probe.top1, probe.untrained_top1) for one, name, probe in probed],
    )
    yield from _remark(
        "Raw pixels win against the trained trunk",
        [(one, name, probe.top1, probe.raw_pixels_top1) for one, name, probe in probed if not _is_tie(probe)],
    )
    yield from _remark(
        "No better than guessing", [(one, name, found.value, found.chance) for one, name, found in evaluated]
    )
    for experiment in summary.experiments:
        if experiment.status == "failed":
            yield f"{experiment.name} failed: {experiment.extra.get('error', 'see its error.txt')}"
        elif experiment.status == "interrupted":
            yield f"{experiment.name} was interrupted: go on with --resume."
    if any(experiment.paper for experiment in summary.experiments) and summary.scale != "paper":
        yield "The paper's numbers are for its own models and data: compare how the rows rank, not the scores."


def _remark(said: str, scores: Sequence[tuple[ExperimentSummary, str, float, float | None]]) -> Iterator[str]:
    """Yield one line for all measures whose score is not above the other score that is given with it."""
    beaten = [
        f"{experiment.name}, {name} ({_percent(other)} % against {_percent(top1)} %)"
        for experiment, name, top1, other in scores
        if other is not None and top1 <= other
    ]
    if beaten:
        yield f"{said}: {'; '.join(beaten)}."


def _is_tie(probe: ProbeSummary) -> bool:
    return probe.raw_pixels_top1 == probe.top1


def _probes(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, ProbeSummary]]:
    for experiment in summary.experiments:
        for name, probe in (experiment.probes or {}).items():
            yield experiment, name, probe


def _evaluations(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, EvaluationSummary | None]]:
    """Scores, and None for what is the paper's alone."""
    for experiment in summary.experiments:
        yield from ((experiment, name, found) for name, found in (experiment.evaluations or {}).items())
        yield from ((experiment, name, None) for name in experiment.not_run)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)


def _loss(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.1f}"


def _half_interval(score: ProbeSummary | EvaluationSummary) -> str:
    return "" if score.ci95 is None else f" ± {50 * (score.ci95[1] - score.ci95[0]):.1f}"
