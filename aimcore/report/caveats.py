"""Caveats of a study's scores, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from aimcore.contracts.messages import counted
from aimcore.io.run_folder import ERROR_FILE
from aimcore.running.summary import EvaluationSummary, ExperimentSummary, ProbeSummary, Summary

_MOST_LISTED = 8
"""Number of entries that a sentence lists; tables have all of them."""


def caveats(summary: Summary) -> Iterator[str]:
    """Yield where training did not help, where raw pixels or guessing win, and what is missing or unfinished."""
    probed = list(_probes(summary))
    yield from _caveat(
        "The trained trunk does not beat the untrained one",
        "untrained",
        [(one, name, probe.top1, probe.untrained_top1) for one, name, probe in probed],
    )
    yield from _caveat(
        "Raw pixels win against the trunk",
        "raw pixels",
        [(one, name, probe.top1, probe.raw_pixels_top1) for one, name, probe in probed if not _is_tie(probe)],
    )
    yield from _within_noise(
        "the untrained trunk", [(one, name, probe.over_untrained95) for one, name, probe in probed]
    )
    yield from _within_noise("raw pixels", [(one, name, probe.over_raw_pixels95) for one, name, probe in probed])
    guessed = [said for experiment in summary.experiments if (said := _guessed(experiment)) is not None]
    if guessed:
        yield f"No better than guessing (score against chance): {'; '.join(guessed)}."
    yield from _left_out(summary)
    yield from _partly_trained(summary)
    yield from _frozen(summary)
    for experiment in summary.experiments:
        if experiment.status == "failed":
            error = experiment.extra.get("error", f"see its {ERROR_FILE}")
            yield f"{experiment.name} failed: {error}"
        elif experiment.status == "interrupted":
            yield f"{experiment.name} was interrupted: continue it with --resume."
        if lost := experiment.extra.get("missing_metrics"):
            yield (
                f"{experiment.name} lost the metrics of steps {lost}, as after a power cut. Its curves and mean "
                "losses do not include them; its weights and scores are not affected."
            )
        later = experiment.extra.get("probed_later")
        if later and isinstance(later, Mapping):
            yield f"{experiment.name} was probed again after its run: {', '.join(map(str, later))}."
    if any(experiment.paper for experiment in summary.experiments) and summary.scale != "paper":
        yield "The paper's numbers are for its own models and data: compare the order of the rows, not the scores."


def _partly_trained(summary: Summary) -> Iterator[str]:
    """Yield the share of trained parameters of experiments that freeze some."""
    for experiment in summary.experiments:
        count = experiment.parameters
        if count is not None and count.trained < count.total:
            yield (
                f"{experiment.name} trained {count.trained:,} of {count.total:,} parameters "
                f"({count.trained / count.total:.2%}); of the trunk's, {count.trunk_trained:,} of {count.trunk:,} "
                f"({count.trunk_trained / max(1, count.trunk):.2%})."
            )


def _frozen(summary: Summary) -> Iterator[str]:
    """Yield one line for all experiments that train nothing, whose scores are in the column of trained trunks."""
    names = [one.name for one in summary.experiments if one.num_steps == 0 and one.probes]
    if names:
        yield f"Frozen baselines, whose trunks have their initial weights: {_listed(names)}."


def _left_out(summary: Summary) -> Iterator[str]:
    """Yield one line for all experiments whose data leave out the same samples."""
    found: dict[tuple[str, tuple[tuple[str, int], ...]], list[str]] = {}
    for experiment in summary.experiments:
        for field, counts in (experiment.left_out or {}).items():
            found.setdefault((field, tuple(counts.items())), []).append(experiment.name)
    for (field, reasons), names in found.items():
        which = "" if len(names) == len(summary.experiments) else f" of {', '.join(names)}"
        yield f"Left out of the data, {field}{which}: {counted(reasons)}."


def is_guessed(score: EvaluationSummary) -> bool:
    """Return whether a score is no better than guessing. A score that guessing always reaches does not count."""
    return score.chance is not None and score.value <= score.chance < 1


@attrs.frozen
class _ChanceScore:
    name: str
    value: float
    chance: float

    def __str__(self) -> str:
        return f"{self.name} ({_percent(self.value)} % against {_percent(self.chance)} %)"


def _guessed(experiment: ExperimentSummary) -> str | None:
    """Yield a run's score that is no better than guessing; of several, their number and the worst."""
    found = [
        _ChanceScore(name, score.value, score.chance)
        for name, score in (experiment.evaluations or {}).items()
        if score.chance is not None and is_guessed(score)
    ]
    if not found:
        return None
    worst = min(found, key=lambda one: one.value / one.chance if one.chance else 1.0)
    return f"{experiment.name}, " + (str(worst) if len(found) == 1 else f"{len(found)} scores, the worst {worst}")


def _caveat(
    said: str, baseline: str, scores: Sequence[tuple[ExperimentSummary, str, float, float | None]]
) -> Iterator[str]:
    """Yield one line for all measures whose score is not above the baseline that is given with it."""
    beaten = [
        f"{experiment.name}, {name} ({baseline} {_percent(other)} %, {_state(experiment)} {_percent(top1)} %)"
        for experiment, name, top1, other in scores
        if other is not None and top1 <= other
    ]
    if beaten:
        yield f"{said}: {_listed(beaten)}."


def _within_noise(
    baseline: str, intervals: Sequence[tuple[ExperimentSummary, str, tuple[float, float] | None]]
) -> Iterator[str]:
    """Yield one line for all probes whose paired difference from a baseline has an interval that includes zero."""
    unclear = [
        f"{experiment.name}, {name} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
        for experiment, name, interval in intervals
        if interval is not None and interval[0] <= 0 <= interval[1]
    ]
    if unclear:
        yield (
            f"The trunk does not clearly differ from {baseline} on these test images (95 % interval of the paired "
            f"difference, points): {_listed(unclear)}."
        )


def _state(experiment: ExperimentSummary) -> str:
    """Return the word for the trunk that was probed: nothing is trained in a frozen baseline."""
    return "trunk" if experiment.num_steps == 0 else "trained"


def _listed(entries: Sequence[str]) -> str:
    """Return the first entries and the number of the others, which tables have."""
    rest = len(entries) - _MOST_LISTED
    return "; ".join(entries) if rest <= 1 else f"{'; '.join(entries[:_MOST_LISTED])}; and {rest} more"


def _is_tie(probe: ProbeSummary) -> bool:
    return probe.raw_pixels_top1 == probe.top1


def _probes(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, ProbeSummary]]:
    for experiment in summary.experiments:
        for name, probe in (experiment.probes or {}).items():
            yield experiment, name, probe


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
