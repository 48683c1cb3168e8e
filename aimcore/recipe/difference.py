"""Differences between two recipes, field by field."""

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


def differences_between(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the fields in which two recipes differ, in the order of the experiment's fields, versions last.

    For a different component, the names come first, then each field that differs or that only one of them has.
    Versions are compared if both recipes have them.

    Args:
        left: a recipe as :func:`aimcore.recipe.to_recipe` returns it, with every field.
        right: the other recipe.
    """
    return (*_in_fields(left["experiment"], right["experiment"], ""), *_in_versions(left, right))


def _in_values(left: Any, right: Any, path: str) -> Iterator[Difference]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        # A component's name determines its type: it is reported at the component's path, before its fields.
        if left.get("name") != right.get("name"):
            yield Difference(path, *({"name": side.get("name")} for side in (left, right)))
        one, other = ({key: value for key, value in side.items() if key != "name"} for side in (left, right))
        yield from _in_fields(one, other, path)
    elif _holds_mappings(left) and _holds_mappings(right):
        for index, items in enumerate(zip_longest(left, right, fillvalue=ABSENT)):
            yield from _in_values(*items, join(path, index))
    elif left != right or type(left) is not type(right):
        yield Difference(path, left, right)


def _in_fields(left: Mapping[str, Any], right: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for name in dict.fromkeys((*left, *right)):
        yield from _in_values(left.get(name, ABSENT), right.get(name, ABSENT), join(path, name))


def _holds_mappings(value: Any) -> bool:
    """Whether a value is a list of components or settings; an empty list counts as one."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, Mapping) for v in value)


def _in_versions(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    one, other = _versions(left), _versions(right)
    if one and other:
        yield from _in_fields(one, other, "")


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
