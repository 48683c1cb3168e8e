"""Checkpoints with which a run begins: none for a new run, a step of another run, or the end of another run."""

from __future__ import annotations

from pathlib import Path

from aimcore.contracts.errors import RunFolderError
from aimcore.engine.checkpoint_checks import WeightsFile, verify_weights
from aimcore.engine.engine_errors import NothingToBeginWith
from aimcore.experiment import Branch
from aimcore.io.run_folder import WEIGHTS_FILE, RunFolder, StudyFolder, step_of


def require_new(run: Path) -> None:
    """Refuse a folder that already has checkpoints: they would get mixed with those of a new run.

    Raises:
        RunFolderError: there are checkpoints already.
    """
    last = RunFolder(run).newest_checkpoint()
    if last is not None:
        raise RunFolderError(
            f"{run} holds a run already, with a checkpoint of step {step_of(last)}: resume it (--resume, or "
            "resume=True in Python), or choose another folder"
        )


def branch_checkpoint(study: Path, branch: Branch) -> Path:
    """Return the checkpoint that ``branch`` names, in the folder of its study.

    Raises:
        NothingToBeginWith: it does not exist, or is outside of that folder.
    """
    run = StudyFolder(study).run(branch.experiment)
    saved = {step_of(path): path for path in run.complete_checkpoints()}
    found = saved.get(branch.step)
    if found is None:
        there = ", ".join(map(str, sorted(saved))) or "none"
        raise NothingToBeginWith(
            f"{run.path} holds no checkpoint of step {branch.step} to branch from (of these steps: {there}); run "
            f"{branch.experiment} as part of this study: it keeps what the study's branches need"
        )
    _require_inside(found, study)
    return found


def end_weights(study: Path, experiment: str) -> WeightsFile:
    """Return ``model.safetensors`` of the last checkpoint of an experiment, in the folder of its study.

    Raises:
        NothingToBeginWith: its training has not ended, or the file is outside of that folder.
        CheckpointDamaged: the file has changed since it was saved.
    """
    last = StudyFolder(study).run(experiment).final_checkpoint()
    if last is None:
        raise NothingToBeginWith(
            f"{study / experiment} holds no weights of a run that was trained to its end: run {experiment} first"
        )
    _require_inside(last / WEIGHTS_FILE, study)
    return verify_weights(last)


def _require_inside(path: Path, study: Path) -> None:
    """Refuse links that lead out of the study's folder: a run may read only files of its own study."""
    if not path.resolve().is_relative_to(study.resolve()):
        raise NothingToBeginWith(f"{path} leads out of the study's folder {study}: no file outside of it is read")
