"""Whether a trunk can do what an objective needs of it, and which setting would help where it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import attrs

from aimcore.component import Component, Problem
from aimcore.declared import field_types, is_literal, is_union
from aimcore.errors import InvalidValue
from aimcore.roles import Objective, Trunk

if TYPE_CHECKING:
    from aimcore.experiment.run import Experiment

C = TypeVar("C", bound=Component)


def ability_problems(experiment: Experiment) -> Iterable[Problem]:
    """Yield what the trunk lacks."""
    objective, trunk = experiment.objective, experiment.trunk
    lacking = _lacking(objective, trunk)
    if lacking:
        yield Problem(
            "objective",
            f"{objective.name!r} needs a trunk that can {' and '.join(map(repr, sorted(lacking)))}; {trunk.name!r} can "
            f"{', '.join(map(repr, sorted(trunk.can))) or 'nothing of that kind'}{_cure(objective, trunk)}",
        )
    if experiment.probes and experiment.probe_attention == "causal" and "causal" not in trunk.can:
        yield Problem("probe_attention", f"trunk {trunk.name!r} cannot attend causally")


def _lacking(objective: Objective, trunk: Trunk) -> frozenset[str]:
    # Any collection will do: a stranger's may be a tuple.
    return frozenset(objective.needs) - frozenset(trunk.can)


def _cure(objective: Objective, trunk: Trunk) -> str:
    """The settings of either, each enough on its own, with which the two fit."""
    of_trunk = [f"trunk.{text}" for text, other in _with_one_change(trunk) if not _lacking(objective, other)]
    of_objective = [f"objective.{text}" for text, other in _with_one_change(objective) if not _lacking(other, trunk)]
    cures = of_trunk + of_objective
    return f": set {' or '.join(cures)}, or use another trunk" if cures else ""


def _with_one_change(component: C) -> Iterator[tuple[str, C]]:
    """``component`` with one field set to another of the few values that it may have."""
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
