"""Which checkpoints of a run exist. Whether one can be loaded is for :mod:`aimcore.engine.checkpoint_checks` to say."""

from __future__ import annotations

import os
import re
from pathlib import Path

from aimcore.contracts.errors import RunFolderError
from aimcore.engine.checkpoint_checks import WEIGHTS, sound_weights
from aimcore.engine.engine_errors import NothingToBeginWith
from aimcore.engine.manifest import MANIFEST, tag_of
from aimcore.experiment import Branch
from aimcore.io.atomic_files import PARTIAL

FOLDER = "checkpoints"
_NAME = re.compile(r"step_([0-9]{8,})")


def complete(run: Path) -> list[Path]:
    """A run's complete checkpoints, newest first."""
    return [path for path in _checkpoints(run) if os.path.lexists(path / MANIFEST)]


def leftovers(run: Path) -> list[Path]:
    """What a crash left of checkpoints that were written or removed: partial files, and folders without a manifest."""
    partial = sorted((run / FOLDER).glob(f"*{PARTIAL}"))
    return partial + [path for path in _checkpoints(run) if not os.path.lexists(path / MANIFEST)]


def _checkpoints(run: Path) -> list[Path]:
    """All that is called as a checkpoint is, newest first."""
    found = [(int(name[1]), path) for path in (run / FOLDER).glob("step_*") if (name := _NAME.fullmatch(path.name))]
    return [path for step, path in sorted(found, reverse=True) if path.name == tag_of(step)]


def require_new(run: Path) -> None:
    """See that a run may begin in ``run``: what is saved there would get mixed with what it saves.

    Raises:
        RunFolderError: there are checkpoints already.
    """
    last = newest(run)
    if last is not None:
        raise RunFolderError(
            f"{run} holds a run already, with a checkpoint of step {step_of(last)}: resume it (--resume, or "
            "resume=True in Python), or choose another folder"
        )


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return next(iter(complete(run)), None)


def step_of(checkpoint: Path) -> int:
    """The number of updates that were done when it was saved."""
    return int(checkpoint.name.removeprefix("step_"))


def to_branch_from(study: Path, branch: Branch) -> Path:
    """The checkpoint that ``branch`` names, in the folder of its study.

    Raises:
        NothingToBeginWith: it is not there, or lies elsewhere.
    """
    run = study / branch.experiment
    found = next((path for path in complete(run) if step_of(path) == branch.step), None)
    if found is None:
        there = ", ".join(map(str, sorted(map(step_of, complete(run))))) or "none"
        raise NothingToBeginWith(
            f"{run} holds no checkpoint of step {branch.step} to branch from (of these steps: {there}); run "
            f"{branch.experiment} as part of this study: it keeps what the study's branches need"
        )
    _require_inside(found, study)
    return found


def end_weights(study: Path, experiment: str) -> Path:
    """``model.safetensors`` of the last checkpoint of an experiment, in the folder of its study.

    Raises:
        NothingToBeginWith: it has not come to its end, or lies elsewhere.
        CheckpointDamaged: the file is not as it was saved.
    """
    last = newest(study / experiment)
    if last is None or not (last / WEIGHTS).is_file():
        raise NothingToBeginWith(
            f"{study / experiment} holds no weights of a run that came to its end: run {experiment} first"
        )
    _require_inside(last / WEIGHTS, study)
    return sound_weights(last)


def _require_inside(path: Path, study: Path) -> None:
    """Links may lead anywhere; what a run begins with is only read from its study's own folder."""
    if not path.resolve().is_relative_to(study.resolve()):
        raise NothingToBeginWith(f"{path} leads out of the study's folder {study}: nothing is read from there")
