"""Matching of a weights file to a part of an objective, by names, shapes and kinds of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.layouts import FileLayout
from aimcore.contracts.trunks import Trunk
from aimcore.engine.engine_errors import WeightsMismatch
from aimcore.engine.freezing import names_none
from aimcore.experiment import Weights
from aimcore.experiment.initialization import TRUNK, WHOLE
from aimcore.registry.plugins import installed

State = Mapping[str, Tensor]


def fitting(state: State, trunk: Trunk, module: nn.Module, weights: Weights) -> dict[str, Tensor]:
    """Return the entries of ``state`` that ``weights`` load into ``module``, by the module's names.

    All may be on the meta device.

    Raises:
        WeightsMismatch: names or shapes differ; the message describes the nearest layout of the file.
    """
    own = module.state_dict()
    prefix = _prefix(own, weights)
    wanted = {name.removeprefix(prefix): value for name, value in own.items() if weights.gives(name)}
    caveats: list[str] = []
    attempts = []
    for layout in _layouts(state, trunk, weights, prefix, caveats):
        entries: State = {name: value for name, value in layout.items() if weights.gives(prefix + name)}
        why_not = ""
        if weights.resize:
            entries, why_not = _resized(entries, trunk, weights)
        problems = list(differences(wanted, entries))
        if not problems:
            return {prefix + name: value for name, value in entries.items()}
        attempts.append((problems, entries, why_not))
    problems, entries, why_not = min(attempts, key=lambda attempt: sum(len(names) for _, names in attempt[0]))
    lines = [message(*problem) for problem in problems] + ([why_not] if why_not else [])
    # A file with some of the names is meant to have this layout: messages about other layouts would only confuse.
    lines += [] if wanted.keys() & entries.keys() else caveats
    if not weights.resize and not list(differences(wanted, _resized(entries, trunk, weights)[0])):
        lines.append("once resized they would fit: set initial_weights.resize, if they were fitted at another size")
    raise WeightsMismatch(source_of(weights), lines)


def require_apart(module: nn.Module, files: Mapping[str, Weights]) -> None:
    """Refuse two files that initialize the same tensor by two names, as with a parameter that two modules share.

    Args:
        module: the objective.
        files: initial weights by their paths in the recipe.

    Raises:
        WeightsMismatch: one of two files would overwrite weights of the other.
    """
    givers: dict[int, tuple[str, str]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        for path, weights in files.items():
            if weights.gives(name):
                other, other_path = givers.setdefault(id(value), (name, path))
                if other_path != path:
                    both = f"{name} is the tensor {other}, which {other_path} gives"
                    raise WeightsMismatch(source_of(weights), [f"{both}: name one of the two in fresh"])


def source_of(weights: Weights) -> str:
    """Describe the source of ``weights``, and the part if it is neither the trunk nor the whole objective."""
    source = weights.url or f"what experiment {weights.experiment!r} ends with"
    return source if weights.part in (WHOLE, TRUNK) else f"{source} (part {weights.part!r})"


def _prefix(own: State, weights: Weights) -> str:
    """Return the prefix of a part's names in the whole objective; for a single parameter, its module's prefix.

    Raises:
        WeightsMismatch: the objective has no such part.
    """
    part = weights.part
    if part == WHOLE:
        return ""
    if part in own:
        return part.removesuffix(part.rpartition(".")[2])
    if not any(name.startswith(f"{part}.") for name in own):
        raise WeightsMismatch(source_of(weights), [names_none(part, own)])
    return f"{part}."


def _resized(entries: State, trunk: Trunk, weights: Weights) -> tuple[State, str]:
    """Return the entries, with positions resized for this trunk; if that fails, the same entries and the reason."""
    if weights.part not in (WHOLE, TRUNK):
        return entries, ""
    prefix = f"{TRUNK}." if weights.part == WHOLE else ""
    of_trunk = {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
    try:
        resized = trunk.resized(of_trunk)
    except (NotImplementedError, AimcoreError) as error:
        return entries, f"and they cannot be resized: {error}"
    others = {name: value for name, value in entries.items() if not name.startswith(prefix)}
    return others | {prefix + name: value for name, value in resized.items()}, ""


def _layouts(state: State, trunk: Trunk, weights: Weights, prefix: str, caveats: list[str]) -> Iterator[State]:
    """Yield the possible layouts of a file: a whole objective, the part itself, or a layout that the trunk converts."""
    in_objective = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
    if in_objective and prefix:
        yield in_objective
    yield state
    yield from _in_known_layouts(state, prefix)
    if weights.part != TRUNK:
        return
    try:
        yield trunk.convert(state)
    except NotImplementedError:
        return
    except AimcoreError as error:
        caveats.append(f"nor is it in another layout that trunk {trunk.name!r} reads: {error}")


def _in_known_layouts(state: State, prefix: str) -> Iterator[State]:
    """Yield the entries of a part in every installed layout that the whole file fits, by the objective's names."""
    for _, kind in installed().registry(FileLayout.role).items():
        layout = kind()
        if not layout.fit(state).problems:
            read = layout.read(state)
            yield {name.removeprefix(prefix): value for name, value in read.items() if name.startswith(prefix)}


def differences(wanted: State, entries: State) -> Iterator[tuple[str, list[str]]]:
    """Yield kinds of difference between two states, each with the names that differ."""
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
    """Return the kind of numbers, which two tensors must share for a meaningful copy."""
    return value.is_floating_point(), value.is_complex()


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def message(kind: str, names: list[str]) -> str:
    """Format one kind of difference for a message."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{kind}: {', '.join(names[:5])}{rest}"
