"""The checks that a component must pass, and the installed components."""

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
    layouts,
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
        "layouts": layouts.CHECKS,
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
"""Roles whose checks depend on the kind or the capabilities of a component."""


def checks_for(component: Component) -> tuple[Check, ...]:
    """Return the checks that ``component`` must pass: those of every component, and those of its role.

    They depend only on its class and capabilities, so its data need not exist.

    Raises:
        NotAComponent: it is not an instance of a component.
    """
    _require_component(component)
    role = type(component).role
    chosen = _CHOSEN[role](component) if role in _CHOSEN else _EVERY_ROLE[role]
    return (*components.CHECKS, *chosen)


def all_checks() -> Mapping[str, tuple[Check, ...]]:
    """Return all checks by role; those of every component are under ``"components"``."""
    return {"components": components.CHECKS, **_EVERY_ROLE}


def installed_components() -> list[Component]:
    """Return every example of every installed component."""
    return [
        example
        for registry in installed().registries.values()
        for _, component in registry.items()
        for example in component.examples()
    ]


def labels_of(components: Sequence[Component]) -> list[str]:
    """Return ``role/name`` of each component, numbered from 1 if several share it."""
    names = [f"{type(component).role}/{type(component).name}" for component in components]
    return [
        f"{name}.{names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _require_component(given: object) -> None:
    if not isinstance(given, Component):
        hint = f": give an instance, {given.__name__}()" if isinstance(given, type) else ""
        raise NotAComponent(f"{given!r} is not a component, so there are no checks for it{hint}")
