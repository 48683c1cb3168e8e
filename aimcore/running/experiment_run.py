"""One experiment in its folder: recipe, training, validation, probes; and what of it goes into the summary."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import attrs
from loguru import logger

from aimcore import recipe
from aimcore.contracts.batches import Batch
from aimcore.data.loading import evaluation_batches
from aimcore.data.unreadable import Unreadable
from aimcore.engine import TrainingResult, build_module, train
from aimcore.engine.distributed import on_every_rank, on_first_rank
from aimcore.engine.saved_checkpoints import require_new
from aimcore.evaluation.objective_scores import Evaluated
from aimcore.evaluation.probing import ProbeScore, probe_experiment
from aimcore.evaluation.validation import Validation, validate
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import remove_partial, write_atomically, writing
from aimcore.io.launcher import rank, world_size
from aimcore.io.run_folder import RECIPE_FILE, RunFolder
from aimcore.running.failures import Supervised
from aimcore.running.folder_lock import locked, require_free
from aimcore.running.left_out import LeftOut, joined, log_left_out, not_evaluated, unread_by_probes, unreadable_of
from aimcore.running.objective_evaluations import evaluate_trained, summaries_of
from aimcore.running.parents import located, require_branch
from aimcore.running.pinned_weights import pinned
from aimcore.running.preflight import check_experiment
from aimcore.running.recorded_recipes import require_same
from aimcore.running.summary import ExperimentSummary, LossSummary, ProbeSummary, Status

EVALUATION_BATCH = 256
"""Images per process and forward pass when nothing is trained."""


@attrs.define
class Measured:
    """What a run has come to so far; None where it has not got."""

    training: TrainingResult | None = None
    validation: Validation | None = None
    evaluations: Evaluated | None = None
    scores: Mapping[str, ProbeScore] | None = None
    left_out: LeftOut | None = None
    """What could not be read."""
    begun_with: Mapping[str, Any] | None = None
    """What another run of the study left, where training began with that."""


@attrs.frozen
class Sharing:
    """What the experiments of a study have in common while they are probed."""

    raw_pixels: MutableMapping[str, Any] = attrs.field(factory=dict)
    """Scores on raw pixels, which depend on the data and the probe alone."""
    features_cache: str | None = None
    """fsspec URL where features of frozen trunks are kept and found again."""


def run_experiment(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool = False,
    paper: Mapping[str, float] | None = None,
    features_cache: str | None = None,
    keep_steps: Collection[int] = (),
) -> ExperimentSummary:
    """Check ``experiment``; then train, validate, evaluate and probe it in ``out/<its name>``.

    What can be known to fail is an error before anything is written. Whatever happens after that is in the summary
    that comes back: an error makes it ``failed``, with a warning, Ctrl-C ``interrupted``, and what was measured before
    is kept.

    Args:
        experiment: what to run.
        out: the folder that gets the run's folder; what it begins with, if that is another run, is there too.
        resume: go on from the last checkpoint, where there is one; the folder must hold this very experiment. Without,
            a folder that has checkpoints is refused.
        paper: the paper's score per probe and per score of an evaluation.
        features_cache: fsspec URL where features of frozen trunks are kept and found again; None keeps none.
        keep_steps: steps whose checkpoints are kept for others to begin with.

    Raises:
        InvalidValue: it cannot run; all problems, each with its path.
        RunFolderError: the folder holds a run, which is not to be resumed, or of another experiment; or another run
            is using the folder, or ``out`` as a whole.
        CannotWrite: the folder cannot be made or written.
        WeightsNotFound: initial weights cannot be read.

    Warns:
        RunFailed: an error ended the run.
    """
    experiment, folder = pinned(experiment), out / experiment.name
    on_first_rank(lambda: require_free(folder, out))
    _require_folder(experiment, folder, resume=resume)
    left_out = check_experiment(
        experiment, world_size=world_size(), out=out, features_cache=features_cache, paper=paper
    )
    log_left_out({experiment.name: left_out})
    sharing = Sharing(features_cache=features_cache)
    with locked(folder, also_free=[out]):
        _require_folder(experiment, folder, resume=resume)  # another run may have begun and ended during the checks
        entry = run_checked(experiment, out, resume=resume, paper=paper, sharing=sharing, keep_steps=keep_steps)
        return attrs.evolve(entry, left_out=joined(left_out, entry.left_out))


def _require_folder(experiment: Experiment, folder: Path, *, resume: bool) -> None:
    with writing(folder):  # also looking at it may be refused
        if resume:
            require_same(experiment, folder)
        else:
            on_first_rank(lambda: require_new(folder))


def run_checked(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool,
    paper: Mapping[str, float] | None,
    sharing: Sharing,
    keep_steps: Collection[int],
) -> ExperimentSummary:
    """Run an experiment that is pinned and checked, as is the folder; all else is as :func:`run_experiment` has it."""
    folder = out / experiment.name
    measured = Measured()
    with Supervised(folder) as supervised:
        with writing(folder):
            folder.mkdir(exist_ok=True)  # not its parent: the folder of results was removed if that is missing
        if rank() == 0:
            remove_partial(folder)
        experiment = _begun(experiment, out, measured)
        measured.training = _train(experiment, folder, resume=resume, keep_steps=keep_steps)
        with measured.training.engine:
            if measured.training.status == "finished":
                _evaluate(experiment, folder, measured, measured.training, sharing)
    if supervised.status == "failed" and measured.validation is not None and rank() == 0:
        logger.error(
            "{}: its training is done and kept. Mend the cause and go on with --resume, or use other probes: "
            "aimcore probe {} --set probes=...",
            experiment.name,
            folder,
        )
    return summary_of(experiment, measured, supervised.status, error=supervised.error, paper=paper)


def summary_of(
    experiment: Experiment,
    measured: Measured,
    status: Status,
    *,
    error: str | None = None,
    paper: Mapping[str, float] | None = None,
) -> ExperimentSummary:
    """The summary's entry of a run that ended with ``status``, having ``measured`` so much."""
    training, scores = measured.training, measured.scores
    if status == "finished" and training is not None:
        status = training.status
    extra: dict[str, Any] = {} if error is None else {"error": error}
    if scores:
        extra["protocols"] = {name: dict(score.card) for name, score in scores.items()}
    if measured.evaluations is not None:
        extra["evaluation_protocols"] = {name: dict(card) for name, card in measured.evaluations.cards.items()}
    if training is not None and training.missing_metrics:
        extra["missing_metrics"] = training.missing_metrics
    if measured.begun_with is not None:
        extra["begun_with"] = dict(measured.begun_with)
    return ExperimentSummary(
        name=experiment.name,
        status=status,
        seed=experiment.seed,
        num_steps=None if training is None else training.num_steps,
        losses=_losses(measured),
        validation_total=None if measured.validation is None else measured.validation.total,
        validation_prefix=experiment.objective.validation_prefix,
        validation_loss_by_chunk=_by_chunk(measured.validation),
        probes={name: probe_summary(score) for name, score in scores.items()} if scores else None,
        evaluations=summaries_of(measured.evaluations),
        paper=paper,
        patches_per_second=None if training is None else training.patches_per_second,
        seconds=None if training is None else training.seconds,
        left_out=measured.left_out,
        extra=extra,
        recipe=f"{experiment.name}/{RECIPE_FILE}",
    )


def _begun(experiment: Experiment, out: Path, measured: Measured) -> Experiment:
    """Write the recipe; then find what another run of the study has left for this one to begin with."""
    on_first_rank(lambda: recipe.save(RunFolder(out / experiment.name).recipe, experiment))
    on_first_rank(lambda: require_branch(experiment, out))
    found = located(experiment, out)
    branch, weights = experiment.branch, found.initial_weights
    if branch is not None:
        measured.begun_with = {"experiment": branch.experiment, "step": branch.step}
    elif found is not experiment and weights is not None and experiment.initial_weights is not None:
        measured.begun_with = {"experiment": experiment.initial_weights.experiment, "sha256": weights.sha256}
    return found


def _train(experiment: Experiment, folder: Path, *, resume: bool, keep_steps: Collection[int]) -> TrainingResult:
    return train(experiment, folder, resume=resume, keep_steps=keep_steps)


def _evaluate(
    experiment: Experiment,
    folder: Path,
    measured: Measured,
    training: TrainingResult,
    sharing: Sharing,
) -> None:
    module, precision = training.module, experiment.engine.precision
    unreadable = Unreadable(experiment.data)
    batches = on_every_rank(lambda: _validation_batches(experiment, unreadable))
    measured.validation = validate(module, batches, precision=precision)
    measured.left_out = unreadable_of(training.num_unreadable, unreadable.num_failed)
    record = json.dumps(measured.validation.record(), indent=2, allow_nan=False)
    on_first_rank(lambda: write_atomically(RunFolder(folder).validation, record + "\n"))
    if experiment.evaluations:
        logger.info("{}: evaluating what the objective can do", experiment.name)
        measured.evaluations = evaluate_trained(experiment, training.engine)
        unread = not_evaluated(experiment.name, measured.evaluations)
        measured.left_out = joined(measured.left_out, unread)
    if experiment.probes:
        logger.info("{}: probing the frozen trunk", experiment.name)
        # Untrained means fresh weights of the same seed, also where training began with fitted ones.
        untrained = build_module(experiment).trunk
        measured.scores = probe_experiment(
            experiment,
            module.trunk,
            untrained,
            raw_pixels=sharing.raw_pixels,
            cache_url=sharing.features_cache,
        )
        unread = unread_by_probes(experiment.data, measured.scores.values())
        measured.left_out = joined(measured.left_out, unread)


def _validation_batches(experiment: Experiment, unreadable: Unreadable) -> Iterator[Batch]:
    return evaluation_batches(
        experiment.data,
        experiment.data.validation.open(),
        patch_size=experiment.trunk.patch_size,
        views=experiment.objective.views,
        text=experiment.objective.text,
        batch_size=EVALUATION_BATCH,
        seed=experiment.seed,
        rank=rank(),
        world_size=world_size(),
        unreadable=unreadable,
    )


def _losses(measured: Measured) -> Mapping[str, LossSummary] | None:
    train = measured.training.losses if measured.training is not None else {}
    held_out = measured.validation.losses if measured.validation is not None else {}
    names = dict.fromkeys((*train, *held_out))
    validation = {name: held_out[name].mean if name in held_out else None for name in names}
    losses = {name: LossSummary(train_last_100=train.get(name), validation=validation[name]) for name in names}
    return losses or None


def _by_chunk(validation: Validation | None) -> tuple[float | None, ...] | None:
    """The chunks of the one loss that runs along the reading order; absent where none, or more than one, does."""
    chunks = [loss.by_chunk() for loss in validation.losses.values()] if validation is not None else []
    present = [values for values in chunks if values is not None]
    return present[0] if len(present) == 1 else None


def probe_summary(score: ProbeScore) -> ProbeSummary:
    """A score as the summary holds it."""
    return ProbeSummary(
        top1=score.top1,
        ci95=score.ci95,
        untrained_top1=score.untrained_top1,
        raw_pixels_top1=score.raw_pixels_top1,
        learning_rate=score.learning_rate,
        layers=score.layers,
    )
