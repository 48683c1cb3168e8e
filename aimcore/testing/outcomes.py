"""The checks without pytest: what each says of a component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from aimcore.component import Component
from aimcore.testing.checks import Check
from aimcore.testing.conformance import checks_for


class Outcome(NamedTuple):
    """What one check said."""

    check: str
    fault: str
    """What is wrong and what to do; empty if the check passed."""


def outcomes_of(component: Component) -> Iterator[Outcome]:
    """Run every check of ``component``; whatever its code raises counts as a fault."""
    for check in checks_for(component):
        yield Outcome(check.__name__, fault_of(check, component))


def fault_of(check: Check, component: Component) -> str:
    """What ``check`` finds wrong with ``component``; empty if nothing."""
    # A check calls a stranger's code, which may fail in any way; the other checks must still be run.
    try:
        check(component)
    except AssertionError as fault:
        return str(fault)
    except Exception as error:  # noqa: BLE001
        return f"raised {type(error).__name__}: {error}"
    return ""
