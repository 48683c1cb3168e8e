"""The checks as pytest tests, one id per component and check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aimcore.contracts.component import Component
from aimcore.contracts.errors import NotAComponent, UnknownCheck
from aimcore.contracts.messages import did_you_mean
from aimcore.testing.checks import Check
from aimcore.testing.conformance import checks_for, labels_of

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(
    components: Iterable[Component], *, xfail: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """Parametrize a test with every component and each of its checks, as arguments ``component`` and ``check``.

    For example::

        @parametrize_with_checks(Hilbert.examples())
        def test_it_conforms(component, check):
            check(component)

    Args:
        components: instances to check, such as a class's ``examples()``.
        xfail: reasons of checks that are known to fail, by name. If such a check passes, its test fails.

    Raises:
        NotAComponent: there is nothing to check, or a value is not an instance of a component.
        UnknownCheck: ``xfail`` names a check that none of the components has.
    """
    import pytest  # here, so that the checks run without it

    every, reasons = list(components), dict(xfail or {})
    cases = list(_cases(every))
    if not cases:
        raise NotAComponent("there is no component to check: if examples() returns none, pass an instance")
    names = sorted({check.__name__ for _, _, check in cases})
    for name in sorted(reasons.keys() - set(names)):
        raise UnknownCheck(f"xfail names {name!r}{did_you_mean(name, names)}; the checks are {', '.join(names)}")

    def marks(check: Check) -> Any:
        reason = reasons.get(check.__name__)
        return () if reason is None else pytest.mark.xfail(reason=reason, strict=True)

    return pytest.mark.parametrize(
        ("component", "check"),
        [
            pytest.param(component, check, id=f"{label}-{check.__name__}", marks=marks(check))
            for label, component, check in cases
        ],
    )


def _cases(components: list[Component]) -> Iterator[tuple[str, Component, Check]]:
    checks = [checks_for(component) for component in components]
    for label, component, own in zip(labels_of(components), components, checks, strict=True):
        yield from ((label, component, check) for check in own)
