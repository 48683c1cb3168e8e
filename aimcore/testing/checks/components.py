"""Checks of every component: it is a frozen value that a recipe can name."""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.field_types import field_types
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import nodes, plain, round_trip_problems, unwritable
from aimcore.registry.plugins import installed
from aimcore.testing.checks import Check
from aimcore.testing.component_listing import plugins_with
from aimcore.testing.field_changes import bad_numbers, changed, paths_of_problems
from aimcore.testing.requirements import FAULTS, explained, require

_HUGE = 2**62
"""Larger than any real size, but within the whole numbers of numpy and torch."""
_NAME = re.compile(r"[a-z0-9]+([_.-][a-z0-9]+)*")


def check_its_name_is_in_lower_case_and_free(component: Component) -> None:
    """Its name is lower case, and no other installed component of its role has it."""
    cls, registry = type(component), installed().registry(component.role)
    require(
        _NAME.fullmatch(cls.name) is not None,
        f"the name {cls.name!r} must be lower-case letters and digits, joined by '_', '-' or '.': recipes and "
        "'aimcore describe' use it",
    )
    taken = cls.name in registry and _place(registry.get(cls.name)) != _place(cls)
    supplier = registry.supplier_of(cls.name) if taken else None
    require(not taken, f"the name {cls.role}/{cls.name} is taken by {supplier}: choose another")


def check_its_docstring_says_what_it_is(component: Component) -> None:
    """Its class has a docstring of its own, which ``aimcore describe`` shows."""
    text = vars(type(component)).get("__doc__") or ""
    require(text.strip() != "", f"{type(component).__name__} has no docstring: say in one sentence what it is")


def check_its_examples_can_be_made(component: Component) -> None:
    """``examples()`` gives instances of its class; none at all where it needs data from outside."""
    cls = type(component)
    with explained(f"{cls.__name__}.examples() fails. Override it where fields have no defaults; return () if it "
                   "needs data from outside"):  # fmt: skip
        examples = tuple(cls.examples())
    strangers = [example for example in examples if type(example) is not cls]
    require(not strangers, f"{cls.__name__}.examples() must give instances of {cls.__name__} alone, got {strangers}")


def check_it_is_a_frozen_value(component: Component) -> None:
    """The same fields make an equal component (of equal hash, but for mappings), and nothing in it can be changed."""
    twin = changed(component, {})
    require(twin == component, f"{component!r} does not equal another made of the same fields")
    lists = [path for path, node in nodes(component) if isinstance(node, list | set | bytearray)]
    require(not lists, f"{lists} can be changed from outside: use tuples, and frozenset for sets")
    if not any(isinstance(node, Mapping) for _, node in nodes(component)):
        require(hash(twin) == hash(component), f"{component!r} and its equal have different hashes")
    for field in (*_names(component), "an_attribute_that_it_does_not_have"):
        require(not _can_be_set(twin, field), f"{field} can be set: decorate the class with @component")


def check_its_recipe_holds_every_field(component: Component) -> None:
    """The constructor takes every field, so that recipes contain all of them."""
    unwritten = sorted(set(_names(component)) - set(plain(component)))
    require(not unwritten, f"recipes do not hold {unwritten}: a field with init=False is state; make it a property")


def check_its_recipe_gives_it_back(component: Component) -> None:
    """A component that is written as JSON and read again is equal, so every field has its declared type."""
    with explained("no recipe can hold it"):
        plugins = plugins_with(component)
        problems = tuple(unwritable(component, plugins))
    require(not problems, f"no recipe can hold it: {_listed(problems)}")
    with explained("its recipe cannot be read again. Fields are declared with types that exist at run time (not "
                   "imported under TYPE_CHECKING alone): bool, int, float, str, None, Literal, tuple, Mapping, "
                   "components, unions of them; and their values have that type"):  # fmt: skip
        field_types(type(component))  # resolves all of them
        again = structured(json.loads(json.dumps(plain(component))), type(component), plugins, {})
    lost = tuple(round_trip_problems(component, again))
    require(not lost, f"its recipe gives another component back: {_listed(lost)}")


def check_bad_numbers_raise_no_other_error_than_invalid_value(component: Component) -> None:
    """Zero, negative and huge numbers in its fields are accepted or reported as problems, never another error."""
    every = list(bad_numbers(component))
    huge = [{name: type(value)(_HUGE)} for change in every for name, value in change.items()]
    together = ChainMap(*map(dict, huge)), ChainMap(*map(dict, every)), ChainMap(*map(dict, reversed(every)))
    for change in (*every, *huge, *map(dict, together)):
        with explained(f"problems() itself fails for {change}: judge other fields only once each is right by itself"):
            paths_of_problems(component, change)


def check_its_problems_name_its_fields(component: Component) -> None:
    """The path of every problem begins with one of its fields."""
    for change in bad_numbers(component):
        unknown = {
            path for path in _reported_paths(component, change) if path.split(".")[0] not in ("", *_names(component))
        }
        require(not unknown, f"for {change} problems() names {sorted(unknown)}, which are no fields: a Problem's path "
                             "is the field it is about")  # fmt: skip


def check_its_problems_are_reported_together(component: Component) -> None:
    """Several wrong fields are reported at once, each with its path."""
    wrong: dict[str, float] = {}
    expected: set[str] = set()
    for change in bad_numbers(component):
        paths = _reported_paths(component, change)
        if paths and not wrong.keys() & change.keys():
            wrong |= change
            expected |= paths
    missing = expected - _reported_paths(component, wrong)
    require(not missing, f"for {wrong} no problem of {sorted(missing)} is reported: yield every problem, raise none")


CHECKS: tuple[Check, ...] = (
    check_its_name_is_in_lower_case_and_free,
    check_its_docstring_says_what_it_is,
    check_its_examples_can_be_made,
    check_it_is_a_frozen_value,
    check_its_recipe_holds_every_field,
    check_its_recipe_gives_it_back,
    check_bad_numbers_raise_no_other_error_than_invalid_value,
    check_its_problems_name_its_fields,
    check_its_problems_are_reported_together,
)


def _place(cls: type[Component]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _names(component: Component) -> list[str]:
    return [field.name for field in attrs.fields(cast("Any", type(component)))]


def _listed(problems: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{path}: {message}" if path else message for path, message in problems)


def _can_be_set(component: Component, field: str) -> bool:
    try:
        setattr(component, field, getattr(component, field, None))
    except AttributeError:  # frozen, or no such slot
        return False
    return True


def _reported_paths(component: Component, changes: Mapping[str, Any]) -> set[str]:
    """The paths of problems of ``changes``; empty on other errors, which have their own check."""
    try:
        return paths_of_problems(component, changes)
    except FAULTS:
        return set()
