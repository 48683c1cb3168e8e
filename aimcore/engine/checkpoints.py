"""Checkpoints that are complete or absent: ``<run>/checkpoints/step_00000600/``.

DeepSpeed writes its files under a temporary name; when all ranks are done, the manifest is added and the folder
renamed. What a crash leaves behind has no manifest and is skipped.

DeepSpeed's files are pickles, and it loads them without restriction. They are only ever read from the run's own folder,
or from that of the run it branches from, beside it; and see :mod:`aimcore.engine.finding` for what is asked of them.
Weights to hand on are in ``model.safetensors``, beside the last checkpoint's files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from loguru import logger
from safetensors.torch import save_file

from aimcore.engine.distributed import barrier, from_first
from aimcore.engine.finding import FOLDER, PARTIAL, WEIGHTS, complete, newest, sound, step_of, to_branch_from
from aimcore.engine.manifest import MANIFEST, Manifest, describe_files, identity
from aimcore.engine.training_engine import TrainingEngine
from aimcore.engine.vocabularies import vocabulary
from aimcore.errors import AimcoreError
from aimcore.experiment import Branch
from aimcore.files import to_disk, write_atomically


def save(
    engine: TrainingEngine,
    run: Path,
    *,
    seconds: float,
    final: bool = False,
    keep: int = 2,
    keep_steps: Collection[int] = (),
) -> Path:
    """Save the engine's state; every rank must call it, and all see the same file system.

    Args:
        engine: what is saved.
        run: the run's folder.
        seconds: training time so far.
        final: add the consolidated weights, as float32.
        keep: how many of the newest checkpoints stay.
        keep_steps: steps whose checkpoints stay besides, because others begin with them.
    """
    folder = run / FOLDER
    tag = f"step_{engine.step_number:08d}"
    if (folder / tag / MANIFEST).exists():
        return folder / tag
    partial = folder / (tag + PARTIAL)
    if engine.world.is_first:
        _make_room(folder)
    barrier()
    engine.save_shards(folder, partial.name)
    weights = engine.full_state_dict() if final else {}
    barrier()
    if engine.world.is_first:
        if final:
            save_file(weights, partial / WEIGHTS, metadata=vocabulary(engine.experiment))
        saved_by = identity(engine.experiment, engine.module, engine.world.size)
        Manifest(engine.step_number, seconds, saved_by, describe_files(partial)).write(partial)
        _publish(partial, folder / tag)
        for old in complete(run)[keep:]:
            if step_of(old) not in keep_steps:
                shutil.rmtree(old)
    barrier()
    return folder / tag


def _make_room(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"*{PARTIAL}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def resume(engine: TrainingEngine, run: Path) -> Manifest | None:
    """Load the newest complete checkpoint into a fresh engine; None where there is none.

    Raises:
        CheckpointDamaged: the newest complete checkpoint has changed since.
        CheckpointMismatch: it is of another stage, precision, seed, model or number of processes.
    """
    return _load(engine, run / FOLDER, lambda: _to_resume_from(run))


def begin_branch(engine: TrainingEngine, run: Path, branch: Branch) -> None:
    """Load the checkpoint that ``branch`` names into a fresh engine: weights, optimiser state and step.

    It is read from the folder beside ``run``, and nowhere else.

    Raises:
        NothingToBeginWith: it is not there.
        CheckpointDamaged, CheckpointMismatch: as for :func:`resume`.
    """
    folder = run.parent / branch.experiment / FOLDER
    _load(engine, folder, lambda: to_branch_from(run.parent, branch))


def _load(engine: TrainingEngine, folder: Path, find: Callable[[], Path | None]) -> Manifest | None:
    """Load the checkpoint in ``folder`` that ``find`` gives, once it is found sound; None where it gives none."""
    asked = identity(engine.experiment, engine.module, engine.world.size)
    found: tuple[str, Manifest] | AimcoreError | None = None
    if engine.world.is_first:
        try:
            checkpoint = find()
            found = None if checkpoint is None else (checkpoint.name, sound(checkpoint, asked))
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


def _publish(partial: Path, final: Path) -> None:
    """Give a complete checkpoint its name, then point ``latest`` to it (DeepSpeed's own tools read that)."""
    if final.exists():  # without a manifest, hence worthless
        shutil.rmtree(final)
    to_disk(partial)
    os.replace(partial, final)
    to_disk(final.parent)
    write_atomically(final.parent / "latest", final.name)


def _to_resume_from(run: Path) -> Path | None:
    for leftover in sorted((run / FOLDER).glob(f"step_*{PARTIAL}")):
        logger.warning("{} was never completed and is left aside", leftover)
    return newest(run)
