"""Initial weights from a safetensors file: found, compared by hash, name and shape, and loaded.

Nothing is unpickled: other formats are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from aimcore.engine.errors import WeightsChanged, WeightsMismatch, WeightsNotFound
from aimcore.engine.freezing import is_in
from aimcore.engine.vocabularies import require_vocabulary
from aimcore.errors import AimcoreError, LocationError
from aimcore.experiment import Experiment, Weights
from aimcore.locations import local_path, open_location
from aimcore.modules import ObjectiveModule

T = TypeVar("T")
State = Mapping[str, Tensor]

_BLOCK = 2**22
_LARGEST_HEADER = 100_000_000
"""What the format allows, in bytes."""
_TRUNK = "trunk."
_METADATA = "__metadata__"


def hash_of(url: str) -> str:
    """The sha256 of the file at ``url``, in hexadecimal.

    Raises:
        WeightsNotFound: it cannot be read.
    """
    return _with_file(url, _hash)


def _hash(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest()


def load_weights(experiment: Experiment, module: ObjectiveModule) -> None:
    """Give ``module`` the initial weights of ``experiment``, in its own types.

    Raises:
        WeightsNotFound: the file cannot be read, or is no safetensors file.
        WeightsChanged: it has another hash than the recipe says.
        WeightsMismatch: it has other names or shapes than the module.
    """
    weights = experiment.initial_weights
    assert weights is not None
    _require_hash(weights)
    header = _with_file(_url(weights), lambda file: _header(_url(weights), file))
    require_vocabulary(experiment, header.get(_METADATA, {}))
    part = _part(weights, module)
    part.load_state_dict(_fitting(_state(_url(weights)), experiment, part), strict=False)  # it lacks what is fresh


def check_weights(experiment: Experiment, module: ObjectiveModule) -> None:
    """See whether :func:`load_weights` would succeed; ``module`` may be on the meta device. Only the header is loaded.

    Raises:
        WeightsNotFound, WeightsChanged, WeightsMismatch: it would not.
    """
    weights = experiment.initial_weights
    assert weights is not None
    header = _with_file(_url(weights), lambda file: _header(_url(weights), file))
    _fitting(_shapes(_url(weights), header), experiment, _part(weights, module))
    require_vocabulary(experiment, header.get(_METADATA, {}))
    _require_hash(weights)


def check_fit(experiment: Experiment, module: ObjectiveModule, state: State) -> None:
    """See whether ``module`` could take ``state``, another run's; both may be on the meta device.

    Raises:
        WeightsMismatch: it could not.
    """
    weights = experiment.initial_weights
    assert weights is not None
    _fitting(state, experiment, _part(weights, module))


def _state(url: str) -> State:
    try:
        return _with_file(url, lambda file: _entries(url, file))
    except SafetensorError as error:
        raise WeightsNotFound(url, f"it is no safetensors file ({error})") from error


def _entries(url: str, file: IO[bytes]) -> State:
    # A local file is mapped into memory, and only what is copied out of it is read.
    path = local_path(url)
    return load(file.read()) if path is None else load_file(path)


def _with_file(url: str, use: Callable[[IO[bytes]], T]) -> T:
    try:
        with open_location(url) as file:
            return use(file)
    except LocationError as error:
        raise WeightsNotFound(url, str(error)) from error
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, AimcoreError):
            raise
        raise WeightsNotFound(url, f"{type(error).__name__}: {error}") from error


def _header(url: str, file: IO[bytes]) -> dict[str, Any]:
    """What a safetensors file begins with: names, shapes and types of its entries, and texts about it."""
    length = int.from_bytes(file.read(8), "little")
    content = file.read(length) if 2 <= length <= _LARGEST_HEADER else b""
    try:
        header = json.loads(content)
    except ValueError as error:
        raise WeightsNotFound(url, "it is no safetensors file") from error
    if not isinstance(header, dict):
        raise WeightsNotFound(url, "it is no safetensors file")
    return header


def _shapes(url: str, header: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of a safetensors file as tensors without values."""
    try:
        shapes = {name: entry["shape"] for name, entry in header.items() if name != _METADATA}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise WeightsNotFound(url, "it is no safetensors file") from error


def _require_hash(weights: Weights) -> None:
    found = hash_of(_url(weights)) if weights.sha256 is not None else None
    if found != weights.sha256:
        raise WeightsChanged(
            f"initial weights: {weights.url} has sha256 {found}, the recipe names {weights.sha256}. Give the file that "
            "was meant, or change initial_weights.sha256"
        )


def _url(weights: Weights) -> str:
    """Where the file is; an earlier experiment's is known once its study has come to this one."""
    if weights.url is None:
        raise WeightsNotFound(f"experiment {weights.experiment!r}", "it is found only where a study is run")
    return weights.url


def _part(weights: Weights, module: ObjectiveModule) -> nn.Module:
    return module if weights.part == "all" else module.trunk


def _fitting(state: State, experiment: Experiment, part: nn.Module) -> dict[str, Tensor]:
    """The entries that ``part`` takes, by its own names.

    Raises:
        WeightsMismatch: names or shapes differ; told for the layout of the file that comes nearest.
    """
    weights = experiment.initial_weights
    assert weights is not None
    wanted = {name: value.shape for name, value in part.state_dict().items()}
    wanted = {name: shape for name, shape in wanted.items() if not _is_fresh(name, weights)}
    remarks: list[str] = []
    attempts = []
    for layout in _layouts(state, experiment, remarks):
        entries: State = {name: value for name, value in layout.items() if not _is_fresh(name, weights)}
        why_not = ""
        if weights.resize:
            entries, why_not = _resized(entries, experiment)
        problems = list(_differences(wanted, entries))
        if not problems:
            return dict(entries)
        attempts.append((problems, entries, why_not))
    problems, entries, why_not = min(attempts, key=lambda attempt: sum(len(names) for _, names in attempt[0]))
    told = [_told(*problem) for problem in problems] + ([why_not] if why_not else [])
    # A file with some of the names is meant to be in this layout: what others say of it only confuses.
    told += [] if wanted.keys() & entries.keys() else remarks
    if not weights.resize and not list(_differences(wanted, _resized(entries, experiment)[0])):
        told.append("once resized they would fit: set initial_weights.resize, if they were fitted at another size")
    raise WeightsMismatch(weights.url or f"what experiment {weights.experiment!r} ends with", told)


def _resized(entries: State, experiment: Experiment) -> tuple[State, str]:
    """The entries with those of the trunk resized for this one; as they are, and why, where they cannot be."""
    weights = experiment.initial_weights
    assert weights is not None
    prefix = _TRUNK if weights.part == "all" else ""
    of_trunk = {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
    try:
        resized = experiment.trunk.resized(of_trunk)
    except (NotImplementedError, AimcoreError) as error:
        return entries, f"and they cannot be resized: {error}"
    beside = {name: value for name, value in entries.items() if not name.startswith(prefix)}
    return beside | {prefix + name: value for name, value in resized.items()}, ""


def _layouts(state: State, experiment: Experiment, remarks: list[str]) -> Iterator[State]:
    """The ways to read a file: a run's whole objective, the part itself, or what the trunk converts."""
    weights = experiment.initial_weights
    assert weights is not None
    if weights.part == "all":
        yield state
        return
    in_objective = {name.removeprefix(_TRUNK): state[name] for name in state if name.startswith(_TRUNK)}
    if in_objective:
        yield in_objective
    yield state
    try:
        yield experiment.trunk.convert(state)
    except NotImplementedError:
        return
    except AimcoreError as error:
        remarks.append(f"nor is it in another layout that trunk {experiment.trunk.name!r} reads: {error}")


def _is_fresh(name: str, weights: Weights) -> bool:
    return any(is_in(name, part) for part in weights.fresh)


def _differences(wanted: Mapping[str, torch.Size], entries: State) -> Iterator[tuple[str, list[str]]]:
    """Kinds of difference, and the names that differ."""
    shapes = {name: tuple(value.shape) for name, value in entries.items()}
    missing = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted]
    reshaped = [
        f"{name} {list(shapes[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != tuple(shape)
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    yield from ((kind, names) for kind, names in found if names)


def _told(kind: str, names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{kind}: {', '.join(names[:5])}{rest}"
