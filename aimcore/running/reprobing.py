"""``aimcore probe``: probe a trained run again, with its own probes or others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import attrs
from loguru import logger

from aimcore import recipe
from aimcore.contracts.errors import InvalidValue, RecipeError, RunFolderError
from aimcore.engine import build_module
from aimcore.evaluation.objective_scores import Evaluated, evaluate
from aimcore.evaluation.probing import ProbeScore, is_untrained, probe_experiment
from aimcore.experiment import Experiment
from aimcore.io.launcher import world_size
from aimcore.io.run_folder import RunFolder, StudyFolder
from aimcore.recipe.difference import differences_between
from aimcore.running.folder_lock import locked
from aimcore.running.measurements import evaluation_cards, evaluation_summaries, probe_cards, probe_summaries
from aimcore.running.omitted_samples import joined, not_evaluated, unread_by_probes
from aimcore.running.preflight import check_measuring
from aimcore.running.recorded_recipes import experiment_of
from aimcore.running.summary import ExperimentSummary, Summary, read_summary, write_summary
from aimcore.running.trained_model import TrainedModel, load_trained

CHANGEABLE = (
    "probes",
    "probe_attention",
    "probe_image_sizes",
    "probe_native_area",
    "probe_every_layer",
    "probe_labels_per_class",
    "probe_label_draws",
    "evaluations",
)
CHANGEABLE_DATA = ("probe_train", "probe_test")
"""Fields of ``data`` that may be changed too. All others determine training."""
PROBED_LATER = "probed_later"
"""Key in a summary's ``extra``: for each score, when and with which settings it was measured."""


def probe_again(run: Path, changes: Sequence[str] = (), *, features_cache: str | None = None) -> Summary:
    """Probe the trained trunk of ``run``, and write the scores to its study's ``summary.json``.

    Scores with the same names are replaced, all others are kept. Evaluations are measured too if ``changes`` name them
    or the summary lacks them. A run that failed after training becomes finished once nothing is missing. Nothing is
    written before everything is measured.

    Args:
        run: the run's folder, in its study's folder.
        changes: ``PATH=VALUE`` as for ``--set``, of the fields in :data:`CHANGEABLE` and :data:`CHANGEABLE_DATA`.
        features_cache: fsspec URL where features are stored and read again; None stores none.

    Returns:
        The updated summary of the study.

    Raises:
        RunFolderError: the run does not exist, was not trained to its end, or another process is using the folder.
        RecipeError: a change is invalid, or would affect training.
        InvalidValue: the probes or evaluations cannot be fitted on the data; all problems, each with its path.
        CheckpointDamaged: the weights are not as they were saved.
        InvalidSummary: the summary is damaged.
    """
    if world_size() > 1:
        raise RunFolderError(f"a run is probed again in one process, not in {world_size()}: start it without torchrun")
    run = run.absolute()
    recorded = experiment_of(run)
    experiment = changed_probes(recorded, changes)
    path = StudyFolder(run.parent).summary
    _entry(path, recorded)
    with locked(run.parent, also_free=[run]):
        summary, entry = _entry(path, recorded)  # another process may have written it during the checks
        experiment = _with_missing(experiment, recorded, entry)
        check_measuring(experiment, features_cache=features_cache)
        trained = load_trained(run, recorded)
        logger.info("{}: probing the frozen trunk", experiment.name)
        scores, evaluated = _measure(experiment, trained, features_cache)
        new = _updated(entry, experiment, scores, evaluated)
        summary = attrs.evolve(
            summary, experiments=tuple(new if known is entry else known for known in summary.experiments)
        )
        write_summary(summary, path)
        if new.status == "finished":
            RunFolder(run).error.unlink(missing_ok=True)
    return summary


def changed_probes(recorded: Experiment, changes: Sequence[str]) -> Experiment:
    """Return ``recorded`` with ``changes``, none of which may affect training.

    Raises:
        RecipeError: a path does not exist, a value is invalid, or a change would affect training.
    """
    experiment = recipe.changed(recorded, changes)
    data = {field: getattr(recorded.data, field) for field in CHANGEABLE_DATA}
    fields = {field: getattr(recorded, field) for field in CHANGEABLE}
    kept = _evolved(experiment, data=_evolved(experiment.data, **data), **fields)
    if kept != recorded:
        places = differences_between(recipe.to_recipe(recorded), recipe.to_recipe(kept))
        allowed = ", ".join((*CHANGEABLE, *(f"data.{field}" for field in CHANGEABLE_DATA)))
        message = f"belongs to what was trained and cannot be changed; what can be: {allowed}"
        raise RecipeError([(place.path.removeprefix("experiment."), message) for place in places], owner="--set")
    return experiment


def _evolved(value: Any, **changes: Any) -> Any:
    return attrs.evolve(value, **changes)


def _entry(path: Path, experiment: Experiment) -> tuple[Summary, ExperimentSummary]:
    """Return the study's summary, and its entry of the run."""
    summary = read_summary(path) if path.is_file() else None
    entry = None if summary is None else summary.of(experiment.name)
    if summary is None or entry is None:
        raise RunFolderError(
            f"{path} {'does not exist' if summary is None else f'has no entry for {experiment.name!r}'}: scores are "
            "kept there. Give the folder of a run in its study's folder; a run that was killed is continued by --resume"
        )
    return summary, entry


def _with_missing(experiment: Experiment, recorded: Experiment, entry: ExperimentSummary) -> Experiment:
    """Return the experiment without the evaluations that the summary has already."""
    is_measured = experiment.evaluations == recorded.evaluations and entry.evaluations is not None
    wanted = cast(Experiment, _evolved(experiment, evaluations=()) if is_measured else experiment)
    if not wanted.probes and not wanted.evaluations:
        message = """there are none: name some, for example --set 'probes=["linear"]'"""
        raise InvalidValue(f"Experiment {experiment.name!r}", [("probes", message)])
    return wanted


def _measure(
    experiment: Experiment, trained: TrainedModel, features_cache: str | None
) -> tuple[Mapping[str, ProbeScore], Evaluated]:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = trained.module.to(device)
    untrained = None if is_untrained(experiment) else build_module(experiment).trunk.to(device)
    evaluated = evaluate(experiment, module)
    return probe_experiment(experiment, module.trunk, untrained, cache_url=features_cache), evaluated


def _updated(
    entry: ExperimentSummary, experiment: Experiment, scores: Mapping[str, ProbeScore], evaluated: Evaluated
) -> ExperimentSummary:
    probes = {**(entry.probes or {}), **probe_summaries(scores)}
    evaluations = {**(entry.evaluations or {}), **evaluation_summaries(evaluated)}
    is_validated = any(loss.validation is not None for loss in (entry.losses or {}).values())
    is_complete = (is_validated or experiment.num_steps == 0) and (entry.num_steps or 0) == experiment.num_steps
    extra = dict(entry.extra)
    if is_complete:
        extra.pop("error", None)
    for name, cards in (
        ("protocols", probe_cards(scores)),
        ("evaluation_protocols", evaluation_cards(evaluated)),
        (PROBED_LATER, dict.fromkeys((*scores, *evaluated.scores), _record(experiment))),
    ):
        if cards:
            extra[name] = {**extra.get(name, {}), **cards}
    unread = joined(not_evaluated(evaluated), unread_by_probes(experiment.data, scores.values()))
    return attrs.evolve(
        entry,
        status="finished" if is_complete else entry.status,
        probes=probes or None,
        evaluations=evaluations or None,
        left_out=joined(entry.left_out, unread),
        extra=extra,
    )


def _record(experiment: Experiment) -> dict[str, Any]:
    """Return the time and the settings of a measurement."""
    written = recipe.to_recipe(experiment)
    fields, data = written["experiment"], written["experiment"]["data"]
    return {
        "at": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "aimcore": written["aimcore"],
        **{field: fields[field] for field in CHANGEABLE},
        **{f"data.{field}": data[field] for field in CHANGEABLE_DATA},
    }
