"""Errors for users. Each message says what was given, what was expected, and what to do."""

from collections.abc import Sequence
from typing import NamedTuple

from aimcore.contracts.messages import shortened


class Problem(NamedTuple):
    """A problem of one field of a value."""

    path: str
    """Path of the field, such as ``"probes.0.epochs"``; empty for the value itself."""
    message: str
    """What is wrong, and what to do."""


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
        """Pickle by constructor arguments, as data workers send errors to the main process."""
        return type(self), (self.owner, self.problems)


class LocationError(AimcoreError):
    """A URL's protocol is refused, unknown or lacks a package, or its host cannot be reached."""


class BrokenContract(AimcoreError):
    """A plugin's module sets or returns something that its contract does not allow."""


class UnreadableSample(AimcoreError):
    """A sample is damaged or missing; the loader skips it, up to a limit."""

    def __init__(self, identifier: str, cause: str) -> None:
        self.identifier = identifier
        self.cause = cause
        super().__init__(f"cannot read {identifier}: {cause}")

    def __reduce__(self) -> tuple[type["UnreadableSample"], tuple[str, str]]:
        """Pickle by constructor arguments, as data workers send errors to the main process."""
        return type(self), (self.identifier, self.cause)


class InvalidStudy(AimcoreError):
    """A study file or recipe cannot be run, or not as requested."""


class RunFolderError(AimcoreError):
    """The folder of a run is in use, or holds the run of another recipe."""


class InvalidSummary(AimcoreError):
    """A ``summary.json`` does not follow its schema."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class UnknownComponent(AimcoreError):
    """No installed plugin provides a component with this name."""

    def __init__(self, role: str, name: str, message: str) -> None:
        self.role = role
        self.name = name
        super().__init__(message)


class NotAComponent(AimcoreError):
    """A plugin provides something that is not a component of the role."""


class NameClash(AimcoreError):
    """Two plugins use the same name; neither takes precedence."""


class PluginError(AimcoreError):
    """A plugin is not installed, cannot be imported, or defines a hook that does not exist."""


class RecipeError(InvalidValue):
    """A recipe cannot be read, or an experiment cannot be written as a recipe; lists every problem with its path."""

    def __init__(self, problems: Sequence[tuple[str, str]], owner: str = "recipe") -> None:
        super().__init__(owner, problems)


class NewerVersion(UserWarning):
    """A recipe was written by a newer version than the one installed."""


class UnknownBlock(UserWarning):
    """``AIMCORE_BLOCK`` names a plugin that is not installed."""


class DataNotFound(AimcoreError):
    """A source cannot find its data; the message says where it looked and how to get the data."""


class TooManyUnreadable(AimcoreError):
    """More samples are unreadable than ``data.max_unreadable`` allows, or no sample is readable."""


class UnknownCheck(AimcoreError):
    """The named check of the conformance kit does not exist or does not apply."""


class InvalidSamples(AimcoreError):
    """A ``samples.npz`` is damaged, or its arrays have inconsistent shapes."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class ReportError(AimcoreError):
    """The given path has nothing to report on."""


class NoCaption(UnreadableSample):
    """A sample has no caption of a requested kind; it counts as unreadable."""


class InvalidLabel(AimcoreError):
    """A label is not an integer from 0 to the number of classes minus 1."""


class NoExamples(AimcoreError):
    """A component has a field without default and does not override ``examples()``."""


class RunFailed(UserWarning):
    """An error ended an experiment; its summary and ``error.txt`` have the error."""
