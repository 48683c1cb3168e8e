"""Checkpoints that are complete or absent: ``<run>/checkpoints/step_00000600/``.

DeepSpeed writes its files under a temporary name; when all ranks are done, the manifest is added and the folder is
renamed. The rest of a crash has no manifest and is skipped.

DeepSpeed's files are pickles, and it loads them without restriction. They are read only from the run's own folder, or
from the folder of its parent run next to it; :mod:`aimcore.engine.checkpoint_checks` verifies them first. Whole weights
for other runs are in ``model.safetensors`` in the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from loguru import logger
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from aimcore.contracts.errors import AimcoreError
from aimcore.engine.checkpoint_checks import newest_intact, verify_checkpoint
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.engine_errors import CheckpointDamaged, CheckpointMismatch
from aimcore.engine.manifest import LAYOUT, Manifest, describe_files, identity
from aimcore.engine.saved_checkpoints import branch_checkpoint
from aimcore.engine.training_engine import TrainingEngine
from aimcore.engine.vocabularies import vocabulary
from aimcore.experiment import Branch
from aimcore.io.atomic_files import PARTIAL, CannotWrite, make_folder, publish_folder, write_atomically, writing
from aimcore.io.run_folder import LATEST_FILE, WEIGHTS_FILE, RunFolder, is_complete, step_of


def save(
    engine: TrainingEngine,
    run: Path,
    *,
    seconds: float,
    final: bool = False,
    keep: int = 2,
    keep_steps: Collection[int] = (),
) -> Path:
    """Save the engine's state. Every rank must call this, and all ranks share a file system.

    Args:
        engine: the engine to save.
        run: the run's folder.
        seconds: training time so far.
        final: add the consolidated weights, as float32.
        keep: number of newest checkpoints to keep.
        keep_steps: steps whose checkpoints are kept too, because other runs begin with them.
    """
    final_folder = RunFolder(run).checkpoint(engine.step_number)
    partial = _partial(final_folder)
    if not on_first_rank(lambda: _begin(run, final_folder)):
        return final_folder
    try:
        engine.save_shards(partial.parent, partial.name)
        weights = engine.full_state_dict() if final else None
        saved_by = identity(engine.experiment, engine.module, engine.world.size)

        def complete_and_prune() -> None:
            with writing(partial):
                if weights is not None:
                    _save_weights(weights, partial / WEIGHTS_FILE, vocabulary(engine.experiment))
                Manifest(engine.step_number, seconds, saved_by, describe_files(partial)).write(partial)
                _publish(partial, final_folder)
            _prune(run, keep, keep_steps)

        on_first_rank(complete_and_prune)
    except AimcoreError:  # raised on all ranks: none of them is writing any more
        if engine.world.is_first:
            _discard(partial)
        raise
    return final_folder


def _save_weights(weights: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(weights, path, metadata=metadata)
    except SafetensorError as error:  # a full disk raises this too
        raise CannotWrite.because(path, error) from error


def _begin(run: Path, final_folder: Path) -> bool:
    """Create the partial folder and remove incomplete checkpoints; return False if the checkpoint exists already."""
    if is_complete(final_folder):
        return False
    partial = _partial(final_folder)
    for leftover in RunFolder(run).incomplete_checkpoints():
        _try_to_remove(leftover)
    make_folder(partial.parent)
    with writing(partial):
        partial.mkdir()
    return True


def _prune(run: Path, keep: int, keep_steps: Collection[int]) -> None:
    """Remove all but the newest checkpoints and those of ``keep_steps``.

    Each is renamed first: if the process ends during the removal, the remaining files are recognised as incomplete.
    """
    for old in RunFolder(run).complete_checkpoints()[keep:]:
        if step_of(old) not in keep_steps:
            _try_to_remove(_partial(old))
            _try_to_remove(old)


def _try_to_remove(path: Path) -> None:
    """Remove a complete or partial checkpoint; of a link only the link. Log a warning if the system refuses."""
    try:
        doomed = path if path.name.endswith(PARTIAL) else path.rename(_partial(path))
        if doomed.is_symlink() or not doomed.is_dir():
            doomed.unlink(missing_ok=True)
        else:
            shutil.rmtree(doomed)
    except OSError as error:
        logger.warning("{} cannot be removed ({}): it is not needed any more; remove it by hand", path, error)


def _discard(partial: Path) -> None:
    """Remove a checkpoint that could not be written; on a full disk, the record of the failure needs its space."""
    for path in partial.rglob("*"):
        with suppress(OSError):
            os.truncate(path, 0)  # a writer that failed may keep the file open, and with it the space
    _try_to_remove(partial)


def _partial(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + PARTIAL)


def resume(engine: TrainingEngine, run: Path) -> Manifest | None:
    """Load the newest complete checkpoint into a fresh engine, or return None if the run has no checkpoint.

    Raises:
        CheckpointDamaged: the newest complete checkpoint has changed since it was saved; the message names the newest
            older one that is intact.
        CheckpointMismatch: its precision, seed, optimiser or model differs.
    """
    asked = identity(engine.experiment, engine.module, engine.world.size)
    try:
        return _load(engine, run, asked, lambda: _to_resume_from(run))
    except CheckpointDamaged as damaged:
        folder = damaged.folder
        raise damaged.with_hint(on_first_rank(lambda: _hint(folder, run, asked))) from damaged


def begin_branch(engine: TrainingEngine, run: Path, branch: Branch) -> None:
    """Load the checkpoint that ``branch`` names into a fresh engine: weights, optimiser state and step.

    It is read from the folder of that run next to ``run``, and nowhere else.

    Raises:
        NothingToBeginWith: it does not exist.
        CheckpointDamaged, CheckpointMismatch: as for :func:`resume`.
    """
    asked = identity(engine.experiment, engine.module, engine.world.size)
    try:
        _load(engine, run.parent / branch.experiment, asked, lambda: branch_checkpoint(run.parent, branch))
    except CheckpointDamaged as damaged:
        again = f"run {branch.experiment} and this branch again in another folder"
        raise damaged.with_hint(f"restore it from a copy, or {again}: a branch begins with this very step") from damaged


def _load(
    engine: TrainingEngine, run: Path, asked: Mapping[str, object], find: Callable[[], Path | None]
) -> Manifest | None:
    """Check and load the checkpoint of ``run`` that ``find`` returns; return None if it returns none."""

    def verified() -> tuple[str, Manifest] | None:
        checkpoint = find()
        return None if checkpoint is None else (checkpoint.name, verify_checkpoint(checkpoint, asked))

    found = on_first_rank(verified)
    if found is None:
        return None
    tag, manifest = found
    if manifest.step > engine.experiment.num_steps:
        differences = {"steps": (manifest.step, f"num_steps is {engine.experiment.num_steps}")}
        raise CheckpointMismatch(str(RunFolder(run).checkpoints / tag), differences)
    if all(manifest.saved_by.get(name) == asked[name] for name in LAYOUT):
        engine.load_shards(RunFolder(run).checkpoints, tag, manifest.step)
    else:
        engine.load_other_layout(RunFolder(run).checkpoints / tag, manifest)
    return manifest


def _hint(damaged: str, run: Path, asked: Mapping[str, object]) -> str:
    """Return what a user can do if the newest checkpoint of a run is ``damaged``."""
    older = newest_intact([path for path in RunFolder(run).complete_checkpoints() if str(path) != damaged], asked)
    away = f"move the folder {damaged} elsewhere and resume again"
    if older is None:
        return f"there is no older intact checkpoint: restore this one from a copy, or {away}, to start again"
    return f"{away}, to continue from {older}"


def _publish(partial: Path, final: Path) -> None:
    """Give a complete checkpoint its final name, then write it to ``latest``, which DeepSpeed's own tools read."""
    publish_folder(partial, final)
    write_atomically(final.parent / LATEST_FILE, final.name)


def _to_resume_from(run: Path) -> Path | None:
    for leftover in RunFolder(run).incomplete_checkpoints():
        logger.warning("{} was never completed and is ignored", leftover)
    return RunFolder(run).newest_checkpoint()
