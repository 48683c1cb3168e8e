"""Check that a trunk has the capabilities that an objective requires, and suggest settings if it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar, cast, get_args

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.contracts.features import Capability
from aimcore.contracts.field_types import field_types, is_literal, is_union
from aimcore.contracts.objectives import Objective
from aimcore.contracts.trunks import Trunk

C = TypeVar("C", bound=Component)


def capability_problems(objective: Objective, trunk: Trunk) -> Iterable[Problem]:
    """Yield the capabilities that ``objective`` requires and ``trunk`` lacks, with settings that would provide them."""
    lacking = _lacking(objective, trunk)
    if lacking:
        yield Problem(
            "objective",
            f"{objective.name!r} needs a trunk that can {' and '.join(map(repr, sorted(lacking)))}; {trunk.name!r} can "
            f"{', '.join(map(repr, sorted(trunk.capabilities))) or 'nothing of that kind'}"
            f"{''.join(_misspelled(name, trunk) for name in sorted(lacking))}{_hint(objective, trunk)}",
        )


def _misspelled(lacking: str, trunk: Trunk) -> str:
    """Suggest another spelling if ``lacking`` resembles a capability, and the core does not know one of the two."""
    known = get_args(Capability)
    others = set(trunk.capabilities) - set(known) if lacking in known else {*trunk.capabilities, *known}
    near = get_close_matches(lacking, sorted(others), n=1)
    return f" (is {lacking!r} another spelling of {near[0]!r}?)" if near else ""


def _lacking(objective: Objective, trunk: Trunk) -> frozenset[str]:
    # A plugin may declare its capabilities in any collection, such as a tuple.
    return frozenset(objective.requires) - frozenset(trunk.capabilities)


def _hint(objective: Objective, trunk: Trunk) -> str:
    """Name the settings of either, each sufficient on its own, that make the two compatible."""
    of_trunk = [f"trunk.{text}" for text, other in _with_one_change(trunk) if not _lacking(objective, other)]
    of_objective = [f"objective.{text}" for text, other in _with_one_change(objective) if not _lacking(other, trunk)]
    changes = of_trunk + of_objective
    return f": set {' or '.join(changes)}, or use another trunk" if changes else ""


def _with_one_change(component: C) -> Iterator[tuple[str, C]]:
    """Yield copies of ``component`` with one boolean or literal field set to another of its values."""
    for name, kind in field_types(type(component), unresolved=Any).items():
        for value in _few_values(kind):
            if value != getattr(component, name):
                try:
                    yield f"{name}={value!r}", cast(C, attrs.evolve(cast(Any, component), **{name: value}))
                except InvalidValue:
                    continue  # not without other changes


def _few_values(kind: Any) -> Iterator[Any]:
    for member in get_args(kind) if is_union(kind) else (kind,):
        if member is NoneType:
            yield None
        elif member is bool:
            yield from (True, False)
        elif is_literal(member):
            yield from get_args(member)
