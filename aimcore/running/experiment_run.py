"""The run of one experiment in its folder: build, train, validate, evaluate, probe, record."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from loguru import logger

from aimcore import recipe
from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.data.loading import evaluation_batches
from aimcore.data.unreadable import Unreadable
from aimcore.engine import begun_module, build_module, train
from aimcore.engine.distributed import on_every_rank, on_first_rank, start
from aimcore.engine.saved_checkpoints import require_new
from aimcore.evaluation.objective_scores import evaluate
from aimcore.evaluation.probing import is_untrained, probe_experiment
from aimcore.evaluation.validation import Validation, validate
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import remove_partial, write_atomically, writing
from aimcore.io.launcher import rank, world_size
from aimcore.io.run_folder import RunFolder, StudyFolder
from aimcore.running.failures import Supervision
from aimcore.running.folder_lock import locked, require_free
from aimcore.running.lost_processes import naming_lost_processes
from aimcore.running.measurements import Measurements
from aimcore.running.omitted_samples import joined, log_left_out, not_evaluated, unread_by_probes, unreadable_of
from aimcore.running.preflight import check_experiment
from aimcore.running.recorded_recipes import require_same
from aimcore.running.starting_points import pinned, with_parent
from aimcore.running.summary import NUM_CHUNKS, ExperimentSummary

EVALUATION_BATCH = 256
"""Images per process and forward pass when nothing is trained."""


@attrs.frozen
class ProbeCaches:
    """Caches that the experiments of a study share while they are probed."""

    raw_pixels: MutableMapping[str, Any] = attrs.field(factory=dict)
    """Outcomes on raw pixels, which depend only on the data and the probe."""
    features: str | None = None
    """fsspec URL where features of frozen trunks are stored and read again."""


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

    Preflight problems are raised before anything is written. The returned summary describes everything after that: an
    error gives the status ``failed``, with a warning, and Ctrl-C or SIGTERM ``interrupted``. Measurements that were
    made before are kept.

    Args:
        experiment: the experiment to run.
        out: the parent of the run's folder. If the run begins with another run, that one is also in ``out``.
        resume: continue from the last checkpoint, if there is one; the folder must hold a run of the same experiment.
            Without it, a folder with checkpoints is refused.
        paper: the paper's score per probe and per score of an evaluation.
        features_cache: fsspec URL where features of frozen trunks are stored and read again; None stores none.
        keep_steps: steps whose checkpoints are kept because other runs begin with them.

    Raises:
        InvalidValue: the experiment cannot run; lists all problems, each with its path.
        RunFolderError: the folder holds a run that must not be resumed, or a run of another experiment; or another
            run uses the folder or all of ``out``.
        CannotWrite: the folder cannot be created or written.
        WeightsNotFound: initial weights cannot be read.

    Warns:
        RunFailed: an error ended the run.
    """
    experiment = pinned(experiment)
    run = StudyFolder(out).run(experiment.name)
    on_first_rank(lambda: require_free(run.path, out))
    _require_folder(experiment, run, resume=resume)
    left_out = check_experiment(
        experiment, world_size=world_size(), out=out, features_cache=features_cache, paper=paper
    )
    log_left_out([left_out])
    with locked(run.path, also_free=[out]):
        _require_folder(experiment, run, resume=resume)  # another run may have begun and ended during the checks
        caches = ProbeCaches(features=features_cache)
        entry = run_checked(experiment, out, resume=resume, paper=paper, caches=caches, keep_steps=keep_steps)
        return attrs.evolve(entry, left_out=joined(left_out, entry.left_out))


def _require_folder(experiment: Experiment, run: RunFolder, *, resume: bool) -> None:
    with writing(run.path):  # reading the folder may be refused too
        if resume:
            require_same(experiment, run)
        else:
            on_first_rank(lambda: require_new(run.path))


def run_checked(
    experiment: Experiment,
    out: Path,
    *,
    resume: bool,
    paper: Mapping[str, float] | None,
    caches: ProbeCaches,
    keep_steps: Collection[int],
) -> ExperimentSummary:
    """Run an experiment that is pinned and checked, in a checked and locked folder: see :func:`run_experiment`.

    An error in the supervised block ends the block. The entry contains the measurements that were made before.
    """
    run, found = StudyFolder(out).run(experiment.name), Measurements()
    with Supervision(run) as supervision, naming_lost_processes():
        _prepare(run, experiment)
        experiment, found.parent = with_parent(experiment, out)
        if experiment.num_steps == 0:
            world = start(experiment.engine.num_threads)
            begun = on_every_rank(lambda: begun_module(experiment)).to(world.device)
            if experiment.is_validated:
                found.validation = _validate(experiment, begun, found)
                _record(found.validation, run)
            _measure(experiment, begun, lambda: begun, found, caches)
        else:
            validator = partial(_validation_losses, experiment)
            training = found.training = train(
                experiment, run.path, resume=resume, keep_steps=keep_steps, validate=validator
            )
            with training.engine as engine:
                if training.status == "finished":
                    found.validation = _validate(experiment, training.module, found, training.num_unreadable)
                    _record(found.validation, run)
                    _measure(experiment, training.module, engine.whole_module, found, caches)
    if supervision.status == "failed" and found.validation is not None and rank() == 0:
        logger.error(
            "{}: its training is done and kept. Fix the cause and continue with --resume, or use other probes: "
            "aimcore probe {} --set probes=...",
            experiment.name,
            run.path,
        )
    return found.entry(experiment, supervision.status, error=supervision.error, paper=paper)


def _measure(
    experiment: Experiment,
    module: ObjectiveModule,
    whole_module: Callable[[], ObjectiveModule],
    found: Measurements,
    caches: ProbeCaches,
) -> None:
    """Evaluate the objective, and probe the trunk of ``module``."""
    if experiment.evaluations:
        logger.info("{}: evaluating the objective", experiment.name)
        found.evaluations = evaluate(experiment, whole_module())
        found.left_out.append(not_evaluated(found.evaluations))
    if experiment.probes:
        logger.info("{}: probing the frozen trunk", experiment.name)
        # Untrained means fresh weights of the same seed, even if training began with other weights.
        untrained = None if is_untrained(experiment) else build_module(experiment).trunk
        found.probes = probe_experiment(
            experiment, module.trunk, untrained, raw_pixels=caches.raw_pixels, cache_url=caches.features
        )
        found.left_out.append(unread_by_probes(experiment.data, found.probes.values()))


def _prepare(run: RunFolder, experiment: Experiment) -> None:
    """Create the folder with the recipe, and remove partial files of an earlier run."""
    with writing(run.path):
        run.path.mkdir(exist_ok=True)  # not its parent: if that is missing, the folder of results was removed
    if rank() == 0:
        remove_partial(run.path)
    on_first_rank(lambda: recipe.save(run.recipe, experiment))


def _validate(
    experiment: Experiment, module: ObjectiveModule, found: Measurements, num_unreadable: int = 0
) -> Validation:
    """Return the validation losses; ``num_unreadable`` images could not be read in training."""
    validation, num_failed = _validation_of(module, experiment)
    found.left_out.append(unreadable_of(num_unreadable, num_failed))
    return validation


def _validation_losses(experiment: Experiment, module: ObjectiveModule) -> dict[str, float]:
    """Return the means of the validation losses while training; images that cannot be read are counted at the end."""
    validation, _ = _validation_of(module, experiment)
    return {name: loss.mean for name, loss in validation.losses.items() if loss.mean is not None}


def _validation_of(module: ObjectiveModule, experiment: Experiment) -> tuple[Validation, int]:
    """Return the validation losses of ``module``, and the number of images that could not be read."""
    unreadable = Unreadable(experiment.data)
    batches = on_every_rank(lambda: _validation_batches(experiment, unreadable))
    return validate(module, batches, precision=experiment.engine.precision), unreadable.num_failed


def _validation_batches(experiment: Experiment, unreadable: Unreadable) -> Iterator[Batch]:
    return evaluation_batches(
        experiment.data,
        experiment.data.validation.open(),
        patch_size=experiment.trunk.patch_size,
        views=experiment.objective.views,
        extras=experiment.objective.extras,
        text=experiment.objective.text,
        batch_size=EVALUATION_BATCH,
        seed=experiment.seed,
        rank=rank(),
        world_size=world_size(),
        unreadable=unreadable,
    )


def _record(validation: Validation, run: RunFolder) -> None:
    text = json.dumps(validation.record(NUM_CHUNKS), indent=2, allow_nan=False) + "\n"
    on_first_rank(lambda: write_atomically(run.validation, text))
