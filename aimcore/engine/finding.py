"""Which checkpoints of a run there are, and whether one is as it was saved.

A checkpoint is sound when it was saved by a run like the one that asks, every file's hash matches the manifest, and its
pickles name nothing but the few types that DeepSpeed saves. Nothing is unpickled to find that out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from aimcore.engine.errors import CheckpointDamaged, CheckpointMismatch, NothingToBeginWith
from aimcore.engine.manifest import MANIFEST, Manifest, read_manifest
from aimcore.errors import RunFolderError
from aimcore.experiment import Branch

FOLDER = "checkpoints"
WEIGHTS = "model.safetensors"
PARTIAL = ".partial"
_NAME = re.compile(r"step_(\d{8,})")
_SAVED_TYPES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""All that DeepSpeed pickles at stages 0 to 3 beside what torch itself calls safe."""


def complete(run: Path) -> list[Path]:
    """A run's complete checkpoints, newest first."""
    found = [path for path in (run / FOLDER).glob("step_*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if (path / MANIFEST).is_file()), key=step_of, reverse=True)


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
    read_manifest(last).only(WEIGHTS).check(last, None)
    return last / WEIGHTS


def _require_inside(path: Path, study: Path) -> None:
    """Links may lead anywhere; what a run begins with is only read from its study's own folder."""
    if not path.resolve().is_relative_to(study.resolve()):
        raise NothingToBeginWith(f"{path} leads out of the study's folder {study}: nothing is read from there")


def sound(checkpoint: Path, asked: Mapping[str, object]) -> Manifest:
    """The manifest of a checkpoint, which fits what is ``asked`` and is as it was saved.

    Raises:
        CheckpointMismatch, CheckpointDamaged: it does not, or is not.
    """
    manifest = read_manifest(checkpoint)
    saved_by = manifest.saved_by
    differences = {name: (saved_by.get(name), value) for name, value in asked.items() if saved_by.get(name) != value}
    if differences:
        raise CheckpointMismatch(str(checkpoint), differences)
    older = _older(checkpoint)
    manifest.check(checkpoint, older)
    for path in sorted(checkpoint.rglob("*.pt")):
        strange = [name for name in _globals_of(path) if name not in _SAVED_TYPES]
        if strange:
            raise CheckpointDamaged(str(path), f"would run {', '.join(strange)} when loaded", older)
    return manifest


def _older(checkpoint: Path) -> str | None:
    """What is left to resume from, should this be the newest checkpoint and damaged."""
    first, *others = complete(checkpoint.parent.parent)
    return str(others[0]) if first == checkpoint and others else None


def _globals_of(path: Path) -> list[str]:
    """Names that unpickling ``path`` would look up, read without unpickling it."""
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
