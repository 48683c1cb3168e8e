"""All mutants, and ``docs/conformance.md``, which is made of them.

To write it anew: ``PYTHONPATH=tests python -m core.testing.mutants.table``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from core.testing.mutants import (
    captions,
    components,
    decoders,
    evaluations,
    heads,
    layouts,
    masking,
    objectives,
    optimizers,
    orderings,
    probes,
    sources,
    targets,
    teachers,
    tokenizers,
    trackers,
    trunks,
)

from aimcore import Component
from aimcore.testing.checks import Check
from aimcore.testing.conformance import all_checks

PAGE = Path(__file__).parents[4] / "docs" / "conformance.md"
MODULES = {
    "components": components,
    "orderings": orderings,
    "targets": targets,
    "heads": heads,
    "trunks": trunks,
    "objectives": objectives,
    "probes": probes,
    "evaluations": evaluations,
    "sources": sources,
    "optimizers": optimizers,
    "trackers": trackers,
    "tokenizers": tokenizers,
    "decoders": decoders,
    "layouts": layouts,
}
MORE = (("objectives", captions), ("objectives", masking), ("objectives", teachers))
"""Further modules of mutants, with their roles."""
EVERY = (*MODULES.items(), *MORE)
SOUND: tuple[Component, ...] = tuple(sound for _, module in EVERY for sound in module.SOUND)


class Mutant(NamedTuple):
    """A component that one check alone must catch."""

    role: str
    check: Check
    component: Component

    @property
    def label(self) -> str:
        """What the test of it is called."""
        return f"{self.role}-{type(self.component).__name__}-{self.check.__name__}"


MUTANTS = tuple(Mutant(role, check, component) for role, module in EVERY for check, component in module.MUTANTS)

_INTRODUCTION = """\
# What the conformance kit checks

Every installed component is checked, by its `examples()`. Each check has at least one *mutant*: a component that is
sound but for one fault. A test runs all checks of its role over every mutant, and asserts that exactly the one named
beside it fails.

This page is made by `PYTHONPATH=tests python -m core.testing.mutants.table`; a test keeps it up to date.
"""


def page() -> str:
    """The page."""
    return "\n".join([_INTRODUCTION, *_lines()])


def _lines() -> Iterator[str]:
    checks = all_checks()
    for role in MODULES:
        yield f"## {'All components' if role == 'components' else role.capitalize()}\n"
        yield "| check | what holds | mutants it alone catches |"
        yield "|---|---|---|"
        for check in checks[role]:
            caught = [_sentence(mutant.component) for mutant in MUTANTS if mutant.check is check]
            yield f"| `{check.__name__}` | {_markdown(check.__doc__ or '')} | {' '.join(caught)} |"
        yield ""


def _sentence(component: Component) -> str:
    text = vars(type(component)).get("__doc__") or "Has no docstring."
    return f"*{type(component).__name__}*: {_markdown(text)}"


def _markdown(docstring: str) -> str:
    return docstring.strip().split("\n")[0].replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
