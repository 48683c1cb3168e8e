"""The checks without pytest: what each says of a component, or of a case of causality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Literal, NamedTuple
from unittest import SkipTest

from aimcore.contracts.component import Component
from aimcore.contracts.errors import BrokenContract
from aimcore.testing.cases import Case
from aimcore.testing.causality import judged
from aimcore.testing.checks import Check
from aimcore.testing.conformance import checks_for


class Outcome(NamedTuple):
    """What one check said."""

    check: str
    fault: str
    """What is wrong and what to do; empty if the check passed."""
    skipped: str = ""
    """Why the check could not be made here; empty if it was."""


def outcomes_of(component: Component) -> Iterator[Outcome]:
    """Run every check of ``component``; whatever its code raises counts as a fault."""
    for check in checks_for(component):
        try:
            yield Outcome(check.__name__, fault_of(check, component))
        except SkipTest as skip:
            yield Outcome(check.__name__, "", str(skip))


def fault_of(check: Check, component: Component) -> str:
    """What ``check`` finds wrong with ``component``, and in which line it came up; empty if nothing.

    Raises:
        SkipTest: the check cannot be made here.
    """
    # A check calls a stranger's code, which may fail in any way; the other checks must still be run.
    try:
        check(component)
    except AssertionError as fault:
        return f"{fault}{_line_of(fault.__cause__, component)}"
    except BrokenContract as fault:
        return str(fault)
    except SkipTest:
        raise
    except Exception as error:  # noqa: BLE001
        return _raised(error, component)
    return ""


class Verdict(NamedTuple):
    """What is found of the causality of a case: one of three."""

    word: Literal["causal", "LEAKS", "NOT JUDGED"]
    findings: Sequence[str]
    """What leaks, or why it cannot be told; empty where it is causal."""
    is_fault: bool
    """Whether something must be mended: a leak, or a loss that its objective has to give per step."""


class NoVerdict(NamedTuple):
    """A case that could not be checked, as its own code raised an error."""

    findings: Sequence[str]
    """The error."""
    word: Literal["CANNOT BE CHECKED"] = "CANNOT BE CHECKED"
    is_fault: bool = True


def verdict_of(case: Case) -> Verdict | NoVerdict:
    """Judge the causality of ``case``; whatever its code raises ends no other case."""
    try:
        leaks, doubts = judged(case)
    except Exception as error:  # noqa: BLE001
        return NoVerdict([_raised(error, case.objective)])
    if leaks:
        return Verdict("LEAKS", leaks, is_fault=True)
    if doubts:
        return Verdict("NOT JUDGED", [doubt.text for doubt in doubts], any(doubt.is_fault for doubt in doubts))
    return Verdict("causal", [], is_fault=False)


def _raised(error: Exception, component: Component) -> str:
    return f"raised {type(error).__name__}: {error}{_line_of(error, component)}"


def _line_of(error: BaseException | None, component: Component) -> str:
    """The last line of the component's own package that an error passed through."""
    package = _package(type(component).__module__)
    frames = [] if error is None else list(walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if _package(frame.f_globals.get("__name__", "")) == package]
    return f" ({Path(own[-1][0].f_code.co_filename).name}, line {own[-1][1]})" if own else ""


def _package(module: str) -> str:
    return module.partition(".")[0]
