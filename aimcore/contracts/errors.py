"""Errors for users. Each says what was given, what is known, and what to do."""

from collections.abc import Sequence
from typing import NamedTuple

from aimcore.contracts.messages import shortened


class Problem(NamedTuple):
    """One thing wrong with a value: the field it is about, and what to do."""

    path: str
    message: str


class AimcoreError(ValueError):
    """Base of every error that a user can act on."""


TRACEBACK = "AIMCORE_TRACEBACK"
"""Environment variable: if it is not empty, errors that end a command are printed with their tracebacks."""

_MOST_LISTED = 50
_LONGEST_PATH = 200
_LONGEST_PROBLEM = 4000


class InvalidValue(AimcoreError):
    """One or more fields of a value are wrong; all of them are in ``problems``, and the first 50 in the message."""

    def __init__(self, owner: str, problems: Sequence[tuple[str, str]]) -> None:
        self.owner = owner
        self.problems = tuple(problems)
        shown = [
            (shortened(path, _LONGEST_PATH), shortened(message, _LONGEST_PROBLEM))
            for path, message in self.problems[:_MOST_LISTED]
        ]
        lines = [f"{path}: {message}" if path else message for path, message in shown]
        if len(self.problems) > _MOST_LISTED:
            lines.append(f"and {len(self.problems) - _MOST_LISTED:,} more problems")
        super().__init__(f"{owner}: " + lines[0] if len(lines) == 1 else "\n  ".join([f"{owner}:", *lines]))

    def __reduce__(self) -> tuple[type["InvalidValue"], tuple[str, tuple[tuple[str, str], ...]]]:
        """Survive the way back from a data worker."""
        return type(self), (self.owner, self.problems)


class LocationError(AimcoreError):
    """A URL's protocol is refused, unknown or lacks a package, or its host cannot be reached."""


class BrokenContract(AimcoreError):
    """What a plugin's module sets or returns is not what the core needs."""


class UnreadableSample(AimcoreError):
    """A sample is damaged or missing; the loader goes on without it, within a limit."""

    def __init__(self, identifier: str, cause: str) -> None:
        self.identifier = identifier
        self.cause = cause
        super().__init__(f"cannot read {identifier}: {cause}")

    def __reduce__(self) -> tuple[type["UnreadableSample"], tuple[str, str]]:
        """Survive the way back from a data worker."""
        return type(self), (self.identifier, self.cause)


class InvalidStudy(AimcoreError):
    """A study file, a recipe, or what was asked of it cannot be run."""


class RunFolderError(AimcoreError):
    """The folder of a run is taken, or holds the run of another recipe."""


class InvalidSummary(AimcoreError):
    """A ``summary.json`` does not follow its schema."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class UnknownComponent(AimcoreError):
    """No installed plugin supplies a component of this name."""

    def __init__(self, role: str, name: str, message: str) -> None:
        self.role = role
        self.name = name
        super().__init__(message)


class NotAComponent(AimcoreError):
    """A plugin supplies something that is no component of the role."""


class NameClash(AimcoreError):
    """Two suppliers use one name; neither is preferred."""


class PluginError(AimcoreError):
    """Plugins are absent, failed to import, or define a hook that nobody calls."""


class RecipeError(InvalidValue):
    """A recipe cannot be read, or an experiment cannot be written as one; every problem is listed with its path."""

    def __init__(self, problems: Sequence[tuple[str, str]], owner: str = "recipe") -> None:
        super().__init__(owner, problems)


class NewerVersion(UserWarning):
    """A recipe was written by a newer version than the one installed."""


class UnknownBlock(UserWarning):
    """``AIMCORE_BLOCK`` names a plugin that is not installed."""


class DataNotFound(AimcoreError):
    """A source's data is not where it was looked for; the message says how to get it."""


class TooManyUnreadable(AimcoreError):
    """More samples are unreadable than ``data.max_unreadable`` and its share allow, or nothing readable is left."""


class UnknownCheck(AimcoreError):
    """A check of the conformance kit is named that does not exist, or does not apply."""


class InvalidSamples(AimcoreError):
    """A ``samples.npz`` is damaged, or its arrays do not fit each other."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class ReportError(AimcoreError):
    """There is nothing to report on where it was looked for."""


class NoCaption(UnreadableSample):
    """A sample has no caption of a wanted kind; it counts as unreadable."""


class InvalidLabel(AimcoreError):
    """A label is no class: not an integer from 0 on, or beyond the number of classes."""


class NoExamples(AimcoreError):
    """A component cannot be made from its defaults, and does not say what the kit should check instead."""


class RunFailed(UserWarning):
    """An error ended an experiment; its summary and ``error.txt`` say which."""
