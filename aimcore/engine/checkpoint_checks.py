"""Verification of checkpoints: saved by a run with the same settings, unchanged since then, and safe to load.

The files in the folder must be exactly those that a run of its ZeRO stage saves, each with the size and hash in the
manifest. The pickles may name only the few types that DeepSpeed saves; after that check, torch's restricted unpickler
reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from aimcore.contracts.errors import AimcoreError
from aimcore.engine.engine_errors import CheckpointDamaged, CheckpointMismatch
from aimcore.engine.manifest import LAYOUT, Manifest, read_manifest
from aimcore.io.atomic_files import sha256_of
from aimcore.io.run_folder import MANIFEST_FILE, WEIGHTS_FILE

_SAVED_TYPES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""Types that DeepSpeed pickles at stages 0 to 3, in addition to torch's own safe types."""
_COUNTS = ("global_steps", "skipped_steps", "dp_world_size", "mp_world_size")
"""Keys of integers in every file of model states."""


def verify_checkpoint(checkpoint: Path, asked: Mapping[str, object]) -> Manifest:
    """Verify that a checkpoint has the ``asked`` settings, is unchanged and can be loaded; return its manifest.

    The layout may differ: see :mod:`aimcore.engine.layout_change`.

    Raises:
        CheckpointMismatch: it was saved by another run.
        CheckpointDamaged: it has changed since it was saved, or cannot be loaded.
    """
    manifest = read_manifest(checkpoint)
    saved_by = manifest.saved_by
    differences = {
        name: (saved_by.get(name), value)
        for name, value in asked.items()
        if saved_by.get(name) != value and name not in LAYOUT
    }
    if differences:
        raise CheckpointMismatch(str(checkpoint), differences)
    _require_exactly(needed_files(manifest), checkpoint, manifest)
    for name in manifest.files:
        _require_unchanged(name, checkpoint, manifest)
    for path in sorted(checkpoint.glob("*.pt")):
        _require_loadable(path, manifest.step)
    return manifest


class WeightsFile(NamedTuple):
    """A file of whole weights whose hash was verified."""

    path: Path
    sha256: str


def verify_weights(checkpoint: Path) -> WeightsFile:
    """Verify the hash of the whole weights, which the checkpoint at the end of training has, and return their file.

    Raises:
        CheckpointDamaged: the file is missing, or has changed since it was saved.
    """
    try:
        manifest = read_manifest(checkpoint)
        if WEIGHTS_FILE not in manifest.files:
            raise CheckpointDamaged(str(checkpoint / WEIGHTS_FILE), "is not listed in the manifest", str(checkpoint))
        _require_unchanged(WEIGHTS_FILE, checkpoint, manifest)
    except CheckpointDamaged as damaged:
        away = f"move the folder {checkpoint} elsewhere and resume that run, which then writes the weights again"
        raise damaged.with_hint(f"restore it from a copy, or {away}") from None
    return WeightsFile(checkpoint / WEIGHTS_FILE, manifest.files[WEIGHTS_FILE]["sha256"])


def damage_of(checkpoint: Path) -> str | None:
    """Describe the first file of a checkpoint that differs from its manifest in size or hash; None if none does."""
    try:
        manifest = read_manifest(checkpoint)
        for name in manifest.files:
            _require_unchanged(name, checkpoint, manifest)
    except CheckpointDamaged as damaged:
        return f"{Path(damaged.file).name} {damaged.problem}"
    return None


def newest_intact(checkpoints: list[Path], asked: Mapping[str, object]) -> Path | None:
    """Return the first intact checkpoint of ``checkpoints``, or None if all are damaged."""
    for checkpoint in checkpoints:
        try:
            verify_checkpoint(checkpoint, asked)
        except AimcoreError:
            continue
        return checkpoint
    return None


def needed_files(manifest: Manifest) -> frozenset[str]:
    """Return the names of DeepSpeed's files for the stage and number of processes of a checkpoint."""
    stage, precision = manifest.saved_by.get("zero_stage"), manifest.saved_by.get("precision")
    processes = manifest.saved_by.get("processes")
    # There cannot be more processes than files, so a huge number in the manifest costs nothing.
    ranks = range(min(processes, len(manifest.files) + 1)) if isinstance(processes, int) else range(1)
    models = [f"zero_pp_rank_{rank}_" for rank in ranks] if stage == 3 else [""]
    kind = "bf16_zero_pp_rank" if precision == "bf16" else "zero_pp_rank"
    shards = [f"{kind}_{rank}_mp_rank_00_optim_states.pt" for rank in ranks] if stage else []
    return frozenset([*(f"{model}mp_rank_00_model_states.pt" for model in models), *shards])


class DamageReport:
    """A context that turns every error into CheckpointDamaged for ``path``, a file or the folder of a checkpoint.

    Torch and DeepSpeed raise errors of any type for unexpected content. Subclasses of AimcoreError and a lack of memory
    are not changed.
    """

    def __init__(self, path: Path, checkpoint: Path) -> None:
        self.path = path
        self.checkpoint = checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, AimcoreError | MemoryError | torch.OutOfMemoryError):
            first_line = next(iter(str(error).splitlines()), "")[:200]
            problem = f"cannot be loaded ({type(error).__name__}: {first_line})"
            raise CheckpointDamaged(str(self.path), problem, str(self.checkpoint)) from error


def _require_exactly(needed: frozenset[str], checkpoint: Path, manifest: Manifest) -> None:
    """Require that the manifest and the folder have the needed files, optionally the weights, and no others."""
    listing = str(checkpoint / MANIFEST_FILE)
    for name in sorted(needed - manifest.files.keys()):
        raise CheckpointDamaged(listing, f"does not list {name}", str(checkpoint))
    for name in sorted(manifest.files.keys() - needed - {WEIGHTS_FILE}):
        raise CheckpointDamaged(listing, f"lists {name}, which is not part of it", str(checkpoint))
    for name in sorted(set(os.listdir(checkpoint)) - manifest.files.keys() - {MANIFEST_FILE}):
        problem = "is not listed in the manifest (if you put it there, remove it)"
        raise CheckpointDamaged(str(checkpoint / name), problem, str(checkpoint))


def _require_unchanged(name: str, checkpoint: Path, manifest: Manifest) -> None:
    """Compare a file with its size and hash."""
    problem = next(_changes(checkpoint / name, manifest.files[name]), None)
    if problem is not None:
        raise CheckpointDamaged(str(checkpoint / name), problem, str(checkpoint))


def _changes(path: Path, expected: Mapping[str, Any]) -> Iterator[str]:
    if path.is_symlink():
        yield "is a link"
    if not path.exists():
        yield "is missing"
    elif not path.is_file():
        yield "is not a file"
    elif path.stat().st_size != expected["bytes"]:
        yield f"has {path.stat().st_size} bytes instead of {expected['bytes']}"
    elif sha256_of(path) != expected["sha256"]:
        yield "does not have the hash it was saved with"


def _require_loadable(path: Path, step: int) -> None:
    """Require that unpickling ``path`` is harmless and gives what DeepSpeed expects, as far as that can be checked."""
    with DamageReport(path, path.parent):
        strange = sorted(set(_globals_of(path)) - _SAVED_TYPES)
        if strange:
            raise CheckpointDamaged(str(path), f"would run {', '.join(strange)} when loaded", str(path.parent))
        content = load_checked(path)
    problem = next(_problems(content, path.name, step), None)
    if problem is not None:
        raise CheckpointDamaged(str(path), problem, str(path.parent))


def _globals_of(path: Path) -> list[str]:
    """Return the names that unpickling ``path`` would look up, without unpickling it."""
    return torch.serialization.get_unsafe_globals_in_checkpoint(path)


def load_checked(path: Path) -> Any:
    """Load a verified file with torch's restricted unpickler; tensors stay in the file until they are read."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _problems(content: Any, name: str, step: int) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"holds a value of type {type(content).__name__} instead of a dictionary"
    elif name.endswith("optim_states.pt"):
        if not isinstance(content.get("optimizer_state_dict"), dict):
            yield "holds no states of the optimiser"
    elif not isinstance(content.get("module"), dict):
        yield "holds no states of the module"
    else:
        wrong = [key for key in _COUNTS if type(content.get(key)) is not int]
        if wrong:
            yield f"holds no number of {wrong[0]}"
        elif content["global_steps"] != step:
            yield f"is of step {content['global_steps']}, and the manifest of step {step}"
