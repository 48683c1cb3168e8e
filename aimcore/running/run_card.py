"""Sections of a model card about a run: its training, its scores, and its recipe."""

from __future__ import annotations

from collections.abc import Iterator

from aimcore import recipe
from aimcore.contracts.errors import InvalidSummary
from aimcore.encoders.model_card import CardSection
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RunFolder, StudyFolder
from aimcore.running.summary import ExperimentSummary, read_summary


def run_sections(run: RunFolder) -> tuple[CardSection, ...]:
    """Return what the card of a run's encoder says about the run. Scores are those in the summary of its study.

    Raises:
        RecipeError: the recipe cannot be read.
    """
    experiment = recipe.load(run.recipe)
    summary = _summary_of(run, experiment.name)
    return (
        CardSection("Training", "\n".join(_training(experiment))),
        CardSection("Numbers", "\n".join(_numbers(summary))),
        CardSection("Recipe", f"```json\n{run.recipe.read_text(encoding='utf-8').rstrip()}\n```"),
    )


def _summary_of(run: RunFolder, name: str) -> ExperimentSummary | None:
    path = StudyFolder(run.path.parent).summary
    try:
        return read_summary(path).of(name) if path.is_file() else None
    except InvalidSummary:
        return None  # the card says that scores are unknown


def _training(experiment: Experiment) -> Iterator[str]:
    data = experiment.data
    yield f"- Experiment `{experiment.name}`, seed {experiment.seed}, {experiment.num_steps:,} steps."
    yield f"- Objective `{experiment.objective.name}`; images of `{data.train.name}`, {data.batch_size} in a batch."
    for path, weights in experiment.weights_by_path.items():
        origin = f"sha256 `{weights.sha256}`" if weights.experiment is None else f"experiment `{weights.experiment}`"
        yield f"- Initial weights of {path or 'the model'}: {origin}."


def _numbers(summary: ExperimentSummary | None) -> Iterator[str]:
    """Yield a table of losses and scores; accuracies are fractions."""
    rows = [] if summary is None else list(_scores(summary))
    if not rows:
        yield "Nothing was measured, or the summary of the study is not there."
        return
    yield "| what | value | 95 % interval | untrained trunk | raw pixels |"
    yield "|---|---|---|---|---|"
    yield from rows


def _scores(summary: ExperimentSummary) -> Iterator[str]:
    for name, loss in (summary.losses or {}).items():
        if loss.validation is not None:
            yield f"| validation loss `{name}` | {loss.validation:.4f} | | | |"
    for name, probe in (summary.probes or {}).items():
        baselines = (_share(probe.untrained_top1), _share(probe.raw_pixels_top1))
        yield f"| probe `{name}`, top-1 | {probe.top1:.4f} | {_ends(probe.interval95)} | {' | '.join(baselines)} |"
    for name, score in (summary.evaluations or {}).items():
        yield f"| `{name}` | {score.value:.4f} | {_ends(score.interval95)} | | |"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
