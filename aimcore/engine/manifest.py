"""A checkpoint's manifest: what saved it, and the size and hash of every file in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.engine.errors import CheckpointDamaged
from aimcore.engine.vocabularies import vocabulary
from aimcore.experiment import Experiment, Optimizer
from aimcore.files import sha256_of, to_disk, write_atomically
from aimcore.modules import ObjectiveModule

MANIFEST = "manifest.json"


@attrs.frozen
class Manifest:
    """What ``manifest.json`` holds."""

    step: int
    """Updates done when it was saved."""
    seconds: float
    """Training time until then."""
    saved_by: Mapping[str, Any]
    """What a run must share to continue: see :func:`identity`."""
    files: Mapping[str, Mapping[str, Any]]
    """Size in bytes and sha256 of every other file, by its path in the checkpoint."""

    def write(self, folder: Path) -> None:
        """Write it into ``folder``, last of all: a checkpoint without a manifest is incomplete."""
        write_atomically(folder / MANIFEST, json.dumps(attrs.asdict(self), indent=1))

    def only(self, name: str) -> Manifest:
        """The manifest of one file alone; a checkpoint without it is damaged."""
        return attrs.evolve(self, files={name: self.files.get(name, {"bytes": -1})})

    def check(self, folder: Path, older: str | None) -> None:
        """Compare every file with its size and hash.

        Raises:
            CheckpointDamaged: one is missing or differs; the message names it, and ``older``, what is left instead.
        """
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file():
                raise CheckpointDamaged(str(path), "is missing", older)
            if path.stat().st_size != expected["bytes"]:
                problem = f"has {path.stat().st_size} bytes instead of {expected['bytes']}"
                raise CheckpointDamaged(str(path), problem, older)
            if sha256_of(path) != expected["sha256"]:
                raise CheckpointDamaged(str(path), "does not have the hash it was saved with", older)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete checkpoint.

    Raises:
        CheckpointDamaged: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointDamaged(str(path), f"cannot be read ({error})", None) from None


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of every file in ``folder``, each brought to the disk first."""
    described = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        to_disk(path)
        described[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return described


def identity(experiment: Experiment, module: ObjectiveModule, world_size: int) -> dict[str, Any]:
    """What a run must have in common with a checkpoint to continue it.

    At ZeRO stage 0 nothing is partitioned, and any number of processes can go on; at stages 1 to 3 each process has its
    own share. ``parameters`` is a hash of all names and shapes; ``vocabulary`` names the tokenizer and its
    file, where text is read.
    """
    stage = experiment.engine.zero_stage
    shapes = [(name, tuple(getattr(p, "ds_shape", p.shape))) for name, p in module.named_parameters()]
    return {
        "zero_stage": stage,
        "precision": experiment.engine.precision,
        "processes": world_size if stage else "any",
        "seed": experiment.seed,
        **_optimizer(experiment.optimizer),
        "parameters": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
        **vocabulary(experiment),
    }


def _optimizer(optimizer: Optimizer) -> dict[str, str]:
    """Its settings: a checkpoint brings rates and decays of its own, which would be used whatever the recipe says."""
    return {f"optimizer.{name}": str(value) for name, value in attrs.asdict(cast(Any, optimizer)).items()}
