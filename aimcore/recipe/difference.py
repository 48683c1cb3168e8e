"""Differences between recipes, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from aimcore.contracts.structuring import join


class _Absent:
    """The value of a field that a recipe does not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Difference(NamedTuple):
    """A field in which two recipes differ. Values are as written; :data:`ABSENT` if a recipe lacks the field."""

    path: str
    """As ``--set`` takes it; versions are below ``plugins`` and at ``aimcore``."""
    left: Any
    right: Any


class DifferingField(NamedTuple):
    """A field in which any number of recipes differ, with the value of each as in :class:`Difference`."""

    path: str
    values: tuple[Any, ...]


def differences_between(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the fields in which two recipes differ, in the order of the experiment's fields, versions last.

    For a different component, the names come first, then each field that differs or that only one of them has.
    Versions are compared if both recipes have them.

    Args:
        left: a recipe as :func:`aimcore.recipe.to_recipe` returns it, with every field.
        right: the other recipe.
    """
    found = (*_in_fields((left["experiment"], right["experiment"]), ""), *_in_versions(left, right))
    return tuple(Difference(path, *values) for path, values in found)


def differing_fields(values: Sequence[Any]) -> Iterator[DifferingField]:
    """Yield the fields in which plain values, such as those of recipes, differ; none for fewer than two.

    >>> [*differing_fields([{"seed": 0, "steps": 9}, {"seed": 1, "steps": 9}, {"steps": 9}])]
    [DifferingField(path='seed', values=(0, 1, ABSENT))]
    """
    return _in_values(tuple(values), "")


def _in_values(values: tuple[Any, ...], path: str) -> Iterator[DifferingField]:
    if all(isinstance(value, Mapping) for value in values):
        # A component's name determines its type: it is reported at the component's path, before its fields.
        names = [value.get("name") for value in values]
        if any(name != names[0] for name in names):
            yield DifferingField(path, tuple({"name": name} for name in names))
        unnamed = ({key: item for key, item in value.items() if key != "name"} for value in values)
        yield from _in_fields(tuple(unnamed), path)
    elif all(map(_holds_mappings, values)):
        for index, items in enumerate(zip_longest(*values, fillvalue=ABSENT)):
            yield from _in_values(items, join(path, index))
    elif any(value != values[0] or type(value) is not type(values[0]) for value in values):
        yield DifferingField(path, values)


def _in_fields(values: tuple[Mapping[str, Any], ...], path: str) -> Iterator[DifferingField]:
    for name in dict.fromkeys(key for value in values for key in value):
        yield from _in_values(tuple(value.get(name, ABSENT) for value in values), join(path, name))


def _holds_mappings(value: Any) -> bool:
    """Whether a value is a list of components or settings; an empty list counts as one."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, Mapping) for v in value)


def _in_versions(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[DifferingField]:
    one, other = _versions(left), _versions(right)
    if one and other:
        yield from _in_fields((one, other), "")


def _versions(recipe: Mapping[str, Any]) -> dict[str, Any]:
    own = {"aimcore": recipe["aimcore"]} if "aimcore" in recipe else {}
    plugins = recipe.get("plugins", {})
    # A recipe that cannot be read may have anything here; it is compared as it is written.
    entries = plugins.items() if isinstance(plugins, Mapping) else [("", plugins)]
    others = {
        join("plugins", name): entry.get("version", entry) if isinstance(entry, Mapping) else entry
        for name, entry in entries
    }
    others.pop("plugins.aimcore", None)  # the core and its plugins are one distribution
    return own | others


def in_words(value: Any) -> str:
    """Format a value on one line: a component as ``mlp(depth=2, width=16)``, absence as a dash, the rest as JSON."""
    if value is ABSENT:
        return "-"
    if isinstance(value, Mapping):
        fields = ", ".join(f"{key}={in_words(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({fields})" if fields or "name" not in value else str(value["name"])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(in_words, value))}]"
    return json.dumps(value, ensure_ascii=False)
