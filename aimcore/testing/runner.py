"""Run the checks of a component, or the causality check of a case, without pytest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Literal, NamedTuple
from unittest import SkipTest

from aimcore.contracts.component import Component
from aimcore.contracts.errors import BrokenContract
from aimcore.testing.cases import Case
from aimcore.testing.causality import causality_of
from aimcore.testing.checks import Check
from aimcore.testing.conformance import checks_for


class Outcome(NamedTuple):
    """The result of one check."""

    check: str
    fault: str
    """What is wrong and what to do; empty if the check passed."""
    skipped: str = ""
    """Why the check could not run here; empty if it ran."""


def outcomes_of(component: Component) -> Iterator[Outcome]:
    """Run every check of ``component``; any error of its code counts as a fault."""
    for check in checks_for(component):
        try:
            yield Outcome(check.__name__, fault_of(check, component))
        except SkipTest as skip:
            yield Outcome(check.__name__, "", str(skip))


def fault_of(check: Check, component: Component) -> str:
    """Run ``check`` on ``component``; return the fault and its line, or an empty text if there is none.

    Raises:
        SkipTest: the check cannot run here.
    """
    # A check calls code of plugins, which may raise any error; the other checks must still run.
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
    """The verdict of the causality check of a case."""

    word: Literal["causal", "LEAKS", "NOT JUDGED"]
    findings: Sequence[str]
    """The leaks, or the reasons of doubts; empty if it is causal."""
    is_fault: bool
    """Whether the objective must be fixed: it leaks, or does not give a loss per step although it must."""


class NoVerdict(NamedTuple):
    """A case that could not be checked, because its own code raised an error."""

    findings: Sequence[str]
    """The error."""
    word: Literal["CANNOT BE CHECKED"] = "CANNOT BE CHECKED"
    is_fault: bool = True


def verdict_of(case: Case) -> Verdict | NoVerdict:
    """Check the causality of ``case``; an error of its code becomes a NoVerdict, so that other cases still run."""
    try:
        leaks, doubts = causality_of(case)
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
