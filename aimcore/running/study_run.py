"""A study in its folder: experiments run one after another, and ``summary.json`` is written after each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from loguru import logger

from aimcore.contracts.errors import RunFolderError
from aimcore.engine.distributed import all_failed_together, on_first_rank
from aimcore.experiment import Experiment, Study
from aimcore.io.atomic_files import CannotWrite, writing
from aimcore.io.launcher import rank, world_size
from aimcore.io.run_folder import HOLDER_FILE, LOCK_FILE, StudyFolder
from aimcore.running.experiment_run import ProbeCaches, run_checked
from aimcore.running.folder_lock import locked, require_free
from aimcore.running.machine import machine
from aimcore.running.omitted_samples import LeftOut, joined, log_left_out
from aimcore.running.preflight import check_study
from aimcore.running.recorded_recipes import difference_from_recorded
from aimcore.running.scaling_budgets import budgets_of
from aimcore.running.starting_points import pinned_study, steps_to_keep
from aimcore.running.summary import (
    ExperimentSummary,
    LabelPointSummary,
    ScalingSummary,
    Summary,
    read_summary,
    write_summary,
)


@attrs.frozen(kw_only=True)
class ReadyStudy:
    """A study that was checked, and may run in its folder."""

    study: Study
    """With the hashes of the files that its experiments begin with."""
    out: Path
    scale: str | None
    resume: bool
    features_cache: str | None
    left_out: Mapping[str, LeftOut]
    """What the sources of each experiment leave out."""


def ready_study(
    study: Study, out: Path, *, scale: str | None, resume: bool = False, features_cache: str | None = None
) -> ReadyStudy:
    """Check that ``study`` can run in ``out``, and write nothing. The arguments are those of :func:`run_study`.

    Raises:
        AimcoreError: it cannot, as for :func:`run_study`.
    """
    study = pinned_study(study)
    check_folder(study, out, resume=resume)
    left_out = check_study(study, world_size=world_size(), out=out, features_cache=features_cache)
    return ReadyStudy(
        study=study, out=out, scale=scale, resume=resume, features_cache=features_cache, left_out=left_out
    )


def run_study(
    study: Study, out: Path, *, scale: str | None, resume: bool = False, features_cache: str | None = None
) -> Summary:
    """Check ``study``; then run its experiments in ``out``, and write ``out/summary.json`` after each.

    Preflight problems are raised before anything is written. If an experiment fails after that, the failure is recorded
    with a warning and the next experiment runs; an interruption ends the study. With several processes, the next
    experiment runs only if all processes failed together.

    Args:
        study: the experiments to run.
        out: the folder of results.
        scale: the study's scale, for the summary; None for a recipe.
        resume: skip the experiments that are finished in ``out``, and continue with the others. A finished experiment
            whose folder was deleted runs again.
        features_cache: fsspec URL where features of frozen trunks are stored and read again; None stores none.

    Returns:
        The summary of all experiments in ``out``.

    Raises:
        RunFolderError: another run uses ``out``; or it is not empty without ``resume``, or holds runs of other
            recipes.
        CannotWrite: ``out`` cannot be created or written.
        InvalidValue: some experiment cannot run; lists all problems, each with its path.
        WeightsNotFound: initial weights cannot be read.

    Warns:
        RunFailed: an error ended an experiment.
    """
    return run_ready(ready_study(study, out, scale=scale, resume=resume, features_cache=features_cache))


def run_ready(ready: ReadyStudy) -> Summary:
    """Run a checked study as :func:`run_study` does."""
    study, out = ready.study, ready.out
    log_left_out(ready.left_out.values())
    with locked(out, also_free=_folders(study, out)):
        check_content(study, out, resume=ready.resume)  # another run may have begun and ended since the checks
        summary = _summary_of(study, out, ready.scale, ready.resume)
        caches, budgets = ProbeCaches(features=ready.features_cache), budgets_of(study)
        for experiment in study.experiments:
            if _is_finished(summary, experiment.name):
                logger.info("{}: finished already", experiment.name)
                continue
            entry = _entry(experiment, ready, caches)
            entry = attrs.evolve(entry, budget=budgets.get(experiment.name))
            summary = _recorded(_with_entry(summary, entry, study), entry, study, out)
            if _ends_the_study(entry):
                break
        return summary


def _entry(experiment: Experiment, ready: ReadyStudy, caches: ProbeCaches) -> ExperimentSummary:
    """Run one experiment of the study."""
    steps = f"{experiment.num_steps} steps" if experiment.num_steps else "nothing is trained"
    logger.info("{}: {} in {}", experiment.name, steps, ready.out / experiment.name)
    entry = run_checked(
        experiment,
        ready.out,
        resume=ready.resume,
        paper=ready.study.paper.get(experiment.name),
        caches=caches,
        keep_steps=steps_to_keep(ready.study, experiment),
    )
    return attrs.evolve(entry, left_out=joined(ready.left_out[experiment.name], entry.left_out))


def _ends_the_study(entry: ExperimentSummary) -> bool:
    if entry.status == "failed" and not all_failed_together(entry.name):
        logger.error("{}: failed on this process alone; the study ends here", entry.name)
        return True
    return entry.status == "interrupted"


def _recorded(summary: Summary, entry: ExperimentSummary, study: Study, out: Path) -> Summary:
    """Write the summary; if the system refuses, the status of ``entry`` becomes failed."""
    try:
        if rank() == 0:
            write_summary(summary, StudyFolder(out).summary)
    except CannotWrite as error:
        logger.error("{}: {}", entry.name, error)
        if entry.status == "finished":
            failed = attrs.evolve(entry, status="failed", extra={**entry.extra, "error": f"CannotWrite: {error}"})
            return _with_entry(summary, failed, study)
    return summary


def default_folder(study: Study, scale: str | None) -> Path:
    """Return ``runs/<study>-<scale>``; for a recipe, which has no scale, ``runs/<name>-recipe``."""
    return Path("runs") / f"{study.name}-{scale or 'recipe'}"


def check_folder(study: Study, out: Path, *, resume: bool) -> None:
    """Require that the study may run in ``out``: no other run uses it, and its content fits the study.

    Every process of a run calls this. Only the first one reads the folder, before another process could create it.

    Raises:
        RunFolderError: the study may not run there; the message says what to do.
    """
    on_first_rank(lambda: require_free(out, *_folders(study, out)))
    check_content(study, out, resume=resume)


def check_content(study: Study, out: Path, *, resume: bool) -> None:
    """Require that the content of ``out`` allows the study to begin or continue there. Every process calls this.

    Raises:
        RunFolderError: it does not allow that; the message says what to do.
        CannotWrite: the system refuses to list it.
    """

    def refused() -> str | None:
        with writing(out):
            return _refusal(study, out, resume)

    refusal = on_first_rank(refused)
    if refusal is not None:
        raise RunFolderError(refusal)


def _folders(study: Study, out: Path) -> list[Path]:
    return [out / experiment.name for experiment in study.experiments]


def _refusal(study: Study, out: Path, resume: bool) -> str | None:
    """Return why the study may not run in ``out``; None if it may."""
    if out.exists() and not out.is_dir():
        return f"{out} is a file, not a folder: choose another --out"
    if not out.exists() or all(path.name in (LOCK_FILE, HOLDER_FILE) for path in out.iterdir()):
        return None
    if not resume:
        return f"{out} holds a run already: continue it with --resume, or choose another folder with --out DIR"
    folder = StudyFolder(out)
    found = [difference_from_recorded(one, folder.run(one.name)) for one in study.experiments]
    differing = [one for one in found if one is not None]
    if not differing:
        return None
    return (
        f"{out} holds runs that this study cannot continue: {'; '.join(differing)}. "
        "Run with the same study, scale and --set, or choose another folder with --out DIR"
    )


def _summary_of(study: Study, out: Path, scale: str | None, resume: bool) -> Summary:
    """Return the summary before the first experiment: entries that are in the folder already."""
    folder = StudyFolder(out)
    kept = read_summary(folder.summary).experiments if resume and folder.summary.exists() else ()
    # What a deleted run was cannot be compared with the study: another recipe may have given its results.
    deleted = on_first_rank(lambda: [one.name for one in study.experiments if not folder.run(one.name).recipe.exists()])
    return Summary(
        study=study.name,
        source=study.source or None,
        scale=scale,
        machine=machine(),
        scaling=_scaling(study),
        label_points=_label_points(study) or None,
        experiments=tuple(entry for entry in kept if entry.name not in deleted),
        paper_only=study.paper_only or None,
    )


def _scaling(study: Study) -> ScalingSummary | None:
    asked = study.scaling
    return None if asked is None else ScalingSummary(curves=asked.curves, others=asked.others, loss=asked.loss)


def _label_points(study: Study) -> tuple[LabelPointSummary, ...]:
    return tuple(
        LabelPointSummary(
            curve=point.curve, per_class=point.per_class, experiments=tuple(point.experiments), error=point.error
        )
        for point in study.label_points
    )


def _is_finished(summary: Summary, name: str) -> bool:
    entry = summary.of(name)
    return entry is not None and entry.status == "finished"


def _with_entry(summary: Summary, entry: ExperimentSummary, study: Study) -> Summary:
    """Return the summary with ``entry``: entries in the study's order, then those of other experiments."""
    entries = {known.name: known for known in summary.experiments} | {entry.name: entry}
    order = [experiment.name for experiment in study.experiments if experiment.name in entries]
    rest = [name for name in entries if name not in order]
    return attrs.evolve(summary, experiments=tuple(entries[name] for name in (*order, *rest)))
