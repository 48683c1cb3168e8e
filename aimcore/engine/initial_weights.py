"""Initial weights from a safetensors file: found, compared by hash, name and shape, and loaded.

Nothing is unpickled: other formats are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.engine_errors import WeightsChanged, WeightsMismatch, WeightsNotFinite, WeightsNotFound
from aimcore.engine.freezing import is_in
from aimcore.engine.tensor_files import NotSafetensors, TensorHeader, read_header
from aimcore.engine.vocabularies import require_vocabulary
from aimcore.experiment import Experiment, Weights
from aimcore.io.locations import local_path, open_location

T = TypeVar("T")
State = Mapping[str, Tensor]

_BLOCK = 2**22
_TRUNK = "trunk."


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
        WeightsMismatch: it has other names, shapes or kinds of numbers than the module.
        WeightsNotFinite: it holds values that are not finite numbers.
    """
    weights = experiment.initial_weights
    assert weights is not None
    _require_hash(weights)
    require_vocabulary(experiment, _header(_url(weights)).metadata)
    part = _part(weights, module)
    fitting = _fitting(_state(_url(weights)), experiment, part)
    require_finite(_url(weights), fitting)
    part.load_state_dict(fitting, strict=False)  # it lacks what is fresh


def check_weights(experiment: Experiment, module: ObjectiveModule) -> None:
    """Check that :func:`load_weights` would succeed; ``module`` may be on the meta device.

    Only the header and the hash are looked at: whether all values are finite is found when they are loaded.

    Raises:
        WeightsNotFound, WeightsChanged, WeightsMismatch: it would not.
    """
    weights = experiment.initial_weights
    assert weights is not None
    header = _header(_url(weights))
    _fitting(header.tensors, experiment, _part(weights, module))
    require_vocabulary(experiment, header.metadata)
    _require_hash(weights)


def check_fit(experiment: Experiment, module: ObjectiveModule, state: State) -> None:
    """See whether ``module`` could take ``state``, another run's; both may be on the meta device.

    Raises:
        WeightsMismatch: it could not.
    """
    weights = experiment.initial_weights
    assert weights is not None
    _fitting(state, experiment, _part(weights, module))


def load_own_weights(path: Path, module: nn.Module) -> list[str]:
    """Give ``module`` the weights of ``path``, which a run of the same recipe has left.

    Returns:
        In what names, shapes and kinds of numbers the two differ; if in any, nothing is loaded.

    Raises:
        WeightsNotFound: the file cannot be read, or is no safetensors file.
        WeightsNotFinite: it holds values that are not finite numbers.
    """
    state = _state(str(path))
    problems = [_told(*problem) for problem in _differences(module.state_dict(), state)]
    if not problems:
        require_finite(str(path), state)
        module.load_state_dict(state)
    return problems


def _state(url: str) -> State:
    """The entries of a safetensors file, whose header is right."""
    _header(url)
    try:
        return _with_file(url, lambda file: _entries(url, file))
    except SafetensorError as error:
        raise WeightsNotFound(url, f"it is no safetensors file, or a damaged one: {error}") from error


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


def _header(url: str) -> TensorHeader:
    """What the safetensors file at ``url`` holds, without values."""
    try:
        return _with_file(url, read_header)
    except NotSafetensors as error:
        raise WeightsNotFound(url, f"it is no safetensors file, or a damaged one: {error}") from error


def require_finite(url: str, state: State) -> None:
    """Refuse weights that are not finite numbers: training with them, or a probe of them, would mean nothing.

    Raises:
        WeightsNotFinite: some are not; all of them are named, with how many of their values are not.
    """
    found = {name: (_num_not_finite(value), value.numel()) for name, value in state.items()}
    wrong = {name: numbers for name, numbers in found.items() if numbers[0]}
    if wrong:
        raise WeightsNotFinite(url, wrong)


def _num_not_finite(value: Tensor) -> int:
    """How many values float32, in which modules are built, cannot hold."""
    if not (value.is_floating_point() or value.is_complex()):
        return 0
    as_built = value.float() if value.is_floating_point() else value
    return int((~as_built.isfinite()).sum())


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
    wanted = {name: value for name, value in part.state_dict().items() if not _is_fresh(name, weights)}
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


def _differences(wanted: State, entries: State) -> Iterator[tuple[str, list[str]]]:
    """Kinds of difference, and the names that differ."""
    missing = [name for name in wanted if name not in entries]
    unexpected = [name for name in entries if name not in wanted]
    both = [(name, entries[name], value) for name, value in wanted.items() if name in entries]
    reshaped = [
        f"{name} {list(found.shape)} instead of {list(value.shape)}"
        for name, found, value in both
        if found.shape != value.shape
    ]
    retyped = [
        f"{name} {_type(found)} instead of {_type(value)}"
        for name, found, value in both
        if _kind(found) != _kind(value)
    ]
    found = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", reshaped),
        ("of another kind of numbers", retyped),
    )
    yield from ((kind, names) for kind, names in found if names)


def _kind(value: Tensor) -> tuple[bool, bool]:
    """What a tensor must share with another to be copied into it without loss of meaning."""
    return value.is_floating_point(), value.is_complex()


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _told(kind: str, names: list[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{kind}: {', '.join(names[:5])}{rest}"
