"""A component with other numbers in its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.field_types import field_types, members
from aimcore.testing.requirements import FAULTS

C = TypeVar("C", bound=Component)


def changed(component: C, changes: Mapping[str, Any]) -> C:
    """``component`` with ``changes`` to its fields.

    Raises:
        InvalidValue: its ``problems()`` say so; and whatever they raise themselves.
    """
    return cast("C", attrs.evolve(cast("Any", component), **changes))


def changed_or_refused(component: C, changes: Mapping[str, Any]) -> C | None:
    """``component`` with ``changes``; None where it refuses them, however."""
    try:
        return changed(component, changes)
    except FAULTS:
        return None


def paths_of_problems(component: Component, changes: Mapping[str, Any]) -> set[str]:
    """Which fields ``problems()`` names once ``changes`` are made."""
    try:
        changed(component, changes)
    except InvalidValue as error:
        return {path for path, _ in error.problems}
    return set()


def bad_numbers(component: Component) -> Iterator[dict[str, float]]:
    """Each numeric field as -1 and as 0, one at a time."""
    try:
        types = field_types(type(component))
    except NameError:  # an annotation that type checkers alone can read: the check of recipes tells
        return
    for name, kind in types.items():
        for number in (int, float):
            if number in members(kind):
                yield {name: number(-1)}
                yield {name: number(0)}
