"""Checkpoints that are complete or absent: ``<run>/checkpoints/step_00000600/``.

DeepSpeed writes its files under a temporary name; when all ranks are done, the manifest is added and the folder
renamed. What a crash leaves behind has no manifest and is skipped.

DeepSpeed's files are pickles, and it loads them without restriction. They are only ever read from the run's own folder,
after every file's hash has matched the manifest and its pickle names nothing but the few types that DeepSpeed saves.
Weights to hand on are in ``model.safetensors``, beside the last checkpoint's files.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import torch
from loguru import logger
from safetensors.torch import save_file

from aimcore.engine.distributed import barrier, from_first
from aimcore.engine.errors import CheckpointDamaged, CheckpointMismatch
from aimcore.engine.files import to_disk, write_atomically
from aimcore.engine.manifest import MANIFEST, Manifest, describe_files, identity, read_manifest
from aimcore.engine.training_engine import TrainingEngine
from aimcore.errors import AimcoreError

FOLDER = "checkpoints"
WEIGHTS = "model.safetensors"
_PARTIAL = ".partial"
_NAME = re.compile(r"step_(\d{8,})")
_SAVED_TYPES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""All that DeepSpeed pickles at stages 0 to 3 beside what torch itself calls safe."""


def save(engine: TrainingEngine, run: Path, *, seconds: float, final: bool = False, keep: int = 2) -> Path:
    """Save the engine's state; every rank must call it, and all see the same file system.

    Args:
        engine: what is saved.
        run: the run's folder.
        seconds: training time so far.
        final: add the consolidated weights, as float32.
        keep: how many of the newest checkpoints stay.
    """
    folder = run / FOLDER
    tag = f"step_{engine.step_number:08d}"
    if (folder / tag / MANIFEST).exists():
        return folder / tag
    partial = folder / (tag + _PARTIAL)
    if engine.world.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    barrier()
    engine.save_shards(folder, partial.name)
    weights = engine.full_state_dict() if final else {}
    barrier()
    if engine.world.is_first:
        if final:
            save_file(weights, partial / WEIGHTS)
        saved_by = identity(engine.experiment, engine.module, engine.world.size)
        Manifest(engine.step_number, seconds, saved_by, describe_files(partial)).write(partial)
        _publish(partial, folder / tag)
        for old in _complete(folder)[keep:]:
            shutil.rmtree(old)
    barrier()
    return folder / tag


def resume(engine: TrainingEngine, run: Path) -> Manifest | None:
    """Load the newest complete checkpoint into a fresh engine; None where there is none.

    Raises:
        CheckpointDamaged: the newest complete checkpoint has changed since.
        CheckpointMismatch: it is of another stage, precision, seed, model or number of processes.
    """
    folder = run / FOLDER
    asked = identity(engine.experiment, engine.module, engine.world.size)
    found: tuple[str, Manifest] | AimcoreError | None = None
    if engine.world.is_first:
        try:
            found = _find(folder, asked)
        except AimcoreError as error:
            found = error
    # A problem that only rank 0 has seen must end the others too.
    found = from_first(found)
    if isinstance(found, AimcoreError):
        raise found
    if found is None:
        return None
    tag, manifest = found
    engine.load_shards(folder, tag, manifest.step)
    return manifest


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    complete = _complete(run / FOLDER)
    return complete[0] if complete else None


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first."""
    found = [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name) and (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def _find(folder: Path, asked: dict[str, object]) -> tuple[str, Manifest] | None:
    complete = _complete(folder)
    for leftover in sorted(folder.glob(f"step_*{_PARTIAL}")):
        logger.warning("{} was never completed and is left aside", leftover)
    if not complete:
        return None
    manifest = read_manifest(complete[0])
    differences = {
        name: (manifest.saved_by.get(name), value)
        for name, value in asked.items()
        if manifest.saved_by.get(name) != value
    }
    if differences:
        raise CheckpointMismatch(str(complete[0]), differences)
    older = str(complete[1]) if len(complete) > 1 else None
    manifest.check(complete[0], older)
    for path in sorted(complete[0].rglob("*.pt")):
        strange = [name for name in _globals_of(path) if name not in _SAVED_TYPES]
        if strange:
            raise CheckpointDamaged(str(path), f"would run {', '.join(strange)} when loaded", older)
    return complete[0].name, manifest


def _globals_of(path: Path) -> list[str]:
    """Names that unpickling ``path`` would look up, read without unpickling it."""
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _publish(partial: Path, final: Path) -> None:
    """Give a complete checkpoint its name, then point ``latest`` to it (DeepSpeed's own tools read that)."""
    if final.exists():  # without a manifest, hence worthless
        shutil.rmtree(final)
    to_disk(partial)
    os.replace(partial, final)
    to_disk(final.parent)
    write_atomically(final.parent / "latest", final.name)
