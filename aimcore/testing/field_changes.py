"""Changes to the fields of a component, and the problems that they cause."""

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
    """Return ``component`` with ``changes`` to its fields.

    Raises:
        InvalidValue: ``problems()`` reports the changed fields. Errors that ``problems()`` raises pass through.
    """
    return cast("C", attrs.evolve(cast("Any", component), **changes))


def changed_or_refused(component: C, changes: Mapping[str, Any]) -> C | None:
    """Return ``component`` with ``changes``; None if its constructor raises any error."""
    try:
        return changed(component, changes)
    except FAULTS:
        return None


def paths_of_problems(component: Component, changes: Mapping[str, Any]) -> set[str]:
    """Return the paths that ``problems()`` reports for ``changes``."""
    try:
        changed(component, changes)
    except InvalidValue as error:
        return {path for path, _ in error.problems}
    return set()


def bad_numbers(component: Component) -> Iterator[dict[str, float]]:
    """Yield each numeric field with -1 and with 0, one field at a time."""
    try:
        types = field_types(type(component))
    except NameError:  # an annotation that only type checkers can read: the check of recipes reports it
        return
    for name, kind in types.items():
        for number in (int, float):
            if number in members(kind):
                yield {name: number(-1)}
                yield {name: number(0)}
