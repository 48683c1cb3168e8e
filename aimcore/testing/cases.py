"""Cases of the causality check: every installed objective with all of its possible parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.field_types import field_types, is_component, members
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.objectives import Objective
from aimcore.contracts.trunks import Trunk
from aimcore.registry.plugins import installed
from aimcore.testing.field_changes import changed_or_refused
from aimcore.testing.requirements import FAULTS


@attrs.frozen
class Case:
    """A named case: a trunk and an objective on a grid."""

    name: str
    trunk: Trunk
    objective: Objective
    grid: PatchGrid


def installed_cases(grid: PatchGrid | None = None) -> list[Case]:
    """Every example of every installed objective, with each part replaced by every installed component of its role.

    Trunks without the capabilities that an objective requires are skipped. The default grid is 3 x 4, so that a mix-up
    of rows and columns shows.
    """
    grid = grid or PatchGrid(3, 4)
    examples = _examples()
    objectives = [objective for example in examples["objectives"] for objective in _variants(example, examples)]
    found: list[tuple[Trunk, Objective]] = []
    for trunk in examples["trunks"]:
        for objective in objectives:
            if (
                isinstance(trunk, Trunk)
                and isinstance(objective, Objective)
                and objective.requires <= trunk.capabilities
            ):
                found += [(trunk, objective)] if (trunk, objective) not in found else []
    return [Case(name, *pair, grid) for name, pair in zip(_names(found), found, strict=True)]


def without_examples() -> dict[str, str]:
    """Errors of installed components whose ``examples()`` fail, by ``role/name``; they are in no case."""
    found = {}
    for role, registry in installed().registries.items():
        for name, cls in registry.items():
            try:
                cls.examples()
            except FAULTS as fault:
                found[f"{role}/{name}"] = f"{type(fault).__name__}: {fault}"
    return found


def _examples() -> dict[str, list[Component]]:
    """Return the examples of all installed components by role; making them may take time."""
    found: dict[str, list[Component]] = {}
    for role, registry in installed().registries.items():
        found[role] = []
        for _, cls in registry.items():
            with suppress(*FAULTS):  # without_examples() names these
                found[role] += cls.examples()
    return found


def _variants(whole: Component, examples: Mapping[str, Sequence[Component]]) -> Iterator[Component]:
    """Yield ``whole``, and ``whole`` with one part replaced by any example of the declared type that is accepted."""
    yield whole
    kinds = field_types(type(whole))
    for field, part in _fields(whole):
        if isinstance(part, Component):
            declared = tuple(kind for kind in members(kinds[field]) if is_component(kind))
            others = [other for other in examples[part.role] if isinstance(other, declared)]
            made = (changed_or_refused(whole, {field: other}) for other in others)
            yield from (variant for variant in made if variant is not None)


def _names(found: Sequence[tuple[Trunk, Objective]]) -> list[str]:
    """A name for each pair; components that share a name are numbered from 1, as in ``aimcore check plugin``."""
    known: dict[str, list[Component]] = {}

    def label(part: Component) -> str:
        same = known[_role_and_name(part)]
        return part.name if len(same) == 1 else f"{part.name}.{same.index(part) + 1}"

    for part in (part for trunk, objective in found for part in (trunk, *_parts(objective))):
        same = known.setdefault(_role_and_name(part), [])
        same += [part] if part not in same else []
    return ["-".join([label(trunk), objective.name, *_summary(objective, label)]) for trunk, objective in found]


def _role_and_name(part: Component) -> str:
    return f"{type(part).role}/{part.name}"


def _parts(whole: Component) -> list[Component]:
    return [value for _, value in _fields(whole) if isinstance(value, Component)]


def _summary(whole: Component, label: Callable[[Component], str]) -> list[str]:
    return [label(value) if isinstance(value, Component) else f"{field}={value}" for field, value in _fields(whole)]


def _fields(whole: Component) -> list[tuple[str, Any]]:
    return [(field.name, getattr(whole, field.name)) for field in attrs.fields(cast("Any", type(whole)))]
