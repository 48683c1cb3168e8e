"""Which checks a component must pass, and all that is installed to check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aimcore.contracts.component import Component
from aimcore.contracts.errors import NotAComponent
from aimcore.registry.plugins import installed
from aimcore.testing.checks import (
    Check,
    components,
    decoders,
    evaluations,
    heads,
    objectives,
    optimizers,
    orderings,
    probes,
    sources,
    targets,
    tokenizers,
    trackers,
    trunks,
)

_EVERY_ROLE: Mapping[str, tuple[Check, ...]] = MappingProxyType(
    {
        "decoders": decoders.CHECKS,
        "evaluations": evaluations.CHECKS,
        "heads": heads.CHECKS,
        "objectives": objectives.CHECKS,
        "optimizers": optimizers.CHECKS,
        "orderings": orderings.CHECKS,
        "probes": probes.CHECKS,
        "sources": sources.CHECKS,
        "targets": targets.CHECKS,
        "tokenizers": tokenizers.CHECKS,
        "trackers": trackers.CHECKS,
        "trunks": trunks.CHECKS,
    }
)
_CHOSEN: Mapping[str, Callable[[Any], Iterable[Check]]] = MappingProxyType(
    {"optimizers": optimizers.checks_of, "tokenizers": tokenizers.checks_of, "trunks": trunks.checks_of}
)
"""Roles whose checks depend on what a component says it is or can."""


def checks_for(component: Component) -> tuple[Check, ...]:
    """The checks that ``component`` must pass: those of every component, and those of its role.

    Which they are depends on its class and abilities alone, so that an instance whose data is not there yet will do.

    Raises:
        NotAComponent: it is no instance of a component.
    """
    _require_component(component)
    role = type(component).role
    chosen = _CHOSEN[role](component) if role in _CHOSEN else _EVERY_ROLE[role]
    return (*components.CHECKS, *chosen)


def all_checks() -> Mapping[str, tuple[Check, ...]]:
    """Every check there is, by role; those of all components under ``"components"``."""
    return {"components": components.CHECKS, **_EVERY_ROLE}


def installed_components() -> list[Component]:
    """Every example of every installed component: a new component brings its own cases."""
    return [
        example
        for registry in installed().registries.values()
        for _, component in registry.items()
        for example in component.examples()
    ]


def labels_of(components: Sequence[Component]) -> list[str]:
    """``role/name`` of each, numbered from 1 where several have the same."""
    names = [f"{type(component).role}/{type(component).name}" for component in components]
    return [
        f"{name}.{names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _require_component(given: object) -> None:
    if not isinstance(given, Component):
        hint = f": give an instance, {given.__name__}()" if isinstance(given, type) else ""
        raise NotAComponent(f"{given!r} is no component, so there are no checks for it{hint}")
