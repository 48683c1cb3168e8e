"""A checkpoint's manifest: the run that saved it, and the size and hash of every file in it.

A manifest is verified, not trusted: the types of its entries, a digest of all entries, and the name of its folder are
checked here, and the files that it lists in :mod:`aimcore.engine.checkpoint_checks`.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.optimizers import Optimizer
from aimcore.engine.engine_errors import CheckpointDamaged
from aimcore.engine.parameter_groups import rate_multipliers
from aimcore.engine.vocabularies import vocabulary
from aimcore.experiment import DEFAULT_OPTIMIZER, Experiment
from aimcore.io.atomic_files import sha256_of, to_disk, write_atomically
from aimcore.io.run_folder import MANIFEST_FILE, checkpoint_name

_DIGEST = "digest"
_LARGEST_BYTES = 2**26
_LARGEST_NUMBER = 2**53
_LONGEST_VALUE = 1000
_NO_MULTIPLIERS = "none"
_EARLIER = {"optimizer.name": DEFAULT_OPTIMIZER, "optimizer.layer_decay": "1.0", "rate_multipliers": _NO_MULTIPLIERS}
"""Entries that ``saved_by`` lacks in manifests of aimcore 0.1, with their only possible values."""
LAYOUT = ("zero_stage", "processes")
"""Entries of ``saved_by`` that describe how the state is spread over files. A run may continue with others."""
_HASH = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@attrs.frozen
class Manifest:
    """The content of ``manifest.json``."""

    step: int
    """Number of updates before the checkpoint was saved."""
    seconds: float
    """Training time in seconds until then."""
    saved_by: Mapping[str, Any]
    """Settings that a run must share to continue: see :func:`identity`."""
    files: Mapping[str, Mapping[str, Any]]
    """Size in bytes and sha256 of every other file, by its name."""

    def write(self, folder: Path) -> None:
        """Write the manifest into ``folder``, after all other files: a checkpoint without it is incomplete."""
        entries = attrs.asdict(self)
        text = json.dumps({**entries, _DIGEST: _digest_of(entries)}, indent=1, allow_nan=False)
        write_atomically(folder / MANIFEST_FILE, text)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a complete checkpoint. Manifests of earlier versions, without a digest, are accepted.

    Raises:
        CheckpointDamaged: it cannot be read, its entries are invalid, or it belongs to another folder.
    """
    path = folder / MANIFEST_FILE
    try:
        entries = _parsed(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointDamaged(str(path), f"cannot be read ({error})", str(folder)) from None
    problem = next(_problems(entries, folder.name), None)
    if problem is not None:
        raise CheckpointDamaged(str(path), problem, str(folder))
    entries["saved_by"] = _EARLIER | entries["saved_by"]
    return Manifest(**{name: value for name, value in entries.items() if name != _DIGEST})


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and hash of every file in ``folder``; each is flushed to disk first."""
    described = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        to_disk(path)
        described[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return described


def _parsed(path: Path) -> Any:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    if found.st_size > _LARGEST_BYTES:
        raise ValueError(f"it has {found.st_size} bytes")
    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it has an entry twice")
    return entries


def _problems(entries: Any, folder: str) -> Iterator[str]:
    """Yield problems of the entries in order: later checks rely on earlier ones."""
    if not isinstance(entries, dict):
        yield f"must hold a JSON object, not {_shown(entries)}"
        return
    names = [field.name for field in attrs.fields(Manifest)]
    missing = [name for name in names if name not in entries]
    unknown = [name for name in entries if name not in (*names, _DIGEST)]
    if missing:
        yield f"lacks {', '.join(missing)}"
    if unknown:
        yield f"has the unknown entry {_shown(unknown[0])}"
    yield from _problems_with_values(entries, folder)
    if _DIGEST in entries and entries[_DIGEST] != _digest_of({name: entries[name] for name in names}):
        yield "was changed after it was written: it does not have the digest that is in it"


def _problems_with_values(entries: Mapping[str, Any], folder: str) -> Iterator[str]:
    step, seconds, saved_by, files = (entries[field.name] for field in attrs.fields(Manifest))
    if not _is_count(step):
        yield f"has the step {_shown(step)}, not a whole number"
    if checkpoint_name(step) != folder:
        yield f"is of step {step}, but its folder is called {folder}"
    if not (type(seconds) in (int, float) and 0 <= seconds <= _LARGEST_NUMBER):
        yield f"has {_shown(seconds)} seconds of training"
    if not isinstance(saved_by, dict):
        yield f"must describe in saved_by what saved it, not {_shown(saved_by)}"
    for name, value in saved_by.items():
        # Messages show these values, so they must not have control characters or lone surrogates.
        if type(value) not in (str, int) or len(str(value)) > _LONGEST_VALUE or not str(value).isprintable():
            yield f"has {_shown(value)} as {_shown(name)} in saved_by"
    if not isinstance(files, dict) or not files:
        yield f"must list the checkpoint's files, not {_shown(files)}"
    for name, described in files.items():
        yield from _problems_with_file(name, described)


def _problems_with_file(name: str, described: Any) -> Iterator[str]:
    if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
        yield f"lists {_shown(name)}, which cannot be a file of a checkpoint"
    if not isinstance(described, dict) or described.keys() != {"bytes", "sha256"}:
        yield f"must give bytes and sha256 of {_shown(name)}"
    if not _is_count(described["bytes"]):
        yield f"gives {_shown(described['bytes'])} as the bytes of {_shown(name)}"
    if not (isinstance(described["sha256"], str) and _HASH.fullmatch(described["sha256"])):
        yield f"gives {_shown(described['sha256'])} as the sha256 of {_shown(name)}"


def _is_count(value: Any) -> bool:
    """Whether ``value`` is a non-negative integer; ``True`` and ``False`` are not."""
    return type(value) is int and 0 <= value <= _LARGEST_NUMBER


def _shown(value: Any) -> str:
    """Format a value for a message: short, and never a whole list or object."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _digest_of(entries: Mapping[str, Any]) -> str:
    """Return the sha256 of the entries, independent of the order and layout of the file."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def identity(experiment: Experiment, module: ObjectiveModule, world_size: int) -> dict[str, Any]:
    """Return the settings that a run must share with a checkpoint to continue it, except those of :data:`LAYOUT`.

    At ZeRO stage 0 nothing is partitioned, so any number of processes has the same files; at stages 1 to 3 each process
    has its own share. ``parameters`` is a hash of all names and shapes, ``rate_multipliers`` a hash of the parameters'
    rate multipliers; ``vocabulary`` names the tokenizer and its file if the objective reads text.
    """
    stage = experiment.engine.zero_stage
    shapes = [(name, tuple(getattr(p, "ds_shape", p.shape))) for name, p in module.named_parameters()]
    return {
        "zero_stage": stage,
        "precision": experiment.engine.precision,
        "processes": world_size if stage else "any",
        "seed": experiment.seed,
        **_optimizer(experiment.optimizer),
        "rate_multipliers": _multipliers(module, experiment.optimizer),
        "parameters": _hash_of(shapes),
        **vocabulary(experiment),
    }


def _optimizer(optimizer: Optimizer) -> dict[str, str]:
    """Return the optimizer's settings: the rates and decays in a checkpoint would replace those of the recipe."""
    fields = [field.name for field in attrs.fields(cast(Any, type(optimizer)))]
    values = {"name": optimizer.name, **{name: _short(str(getattr(optimizer, name))) for name in fields}}
    return {f"optimizer.{name}": value for name, value in values.items()}


def _multipliers(module: ObjectiveModule, optimizer: Optimizer) -> str:
    """Return a text for the parameters' rate multipliers, which a checkpoint would replace too."""
    found = {name: value for name, value in rate_multipliers(module, optimizer).items() if value != 1}
    if not found:
        return _NO_MULTIPLIERS
    return f"{min(found.values()):g} to {max(found.values()):g} ({_hash_of(sorted(found.items()))})"


def _short(text: str) -> str:
    """Shorten a field's value for the manifest."""
    return text if len(text) <= _LONGEST_VALUE and text.isprintable() else _hash_of(text)


def _hash_of(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
