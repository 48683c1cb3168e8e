"""Names of experiments and studies: they must be valid folder names on every file system."""

from __future__ import annotations

from collections.abc import Iterable

from aimcore.contracts.errors import Problem
from aimcore.contracts.messages import shown
from aimcore.io.run_folder import FIGURES_FOLDER, REPORT_FILE, SUMMARY_FILE

_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_MOST_BYTES = 200
"""Most file systems allow 255 bytes; names of temporary files add some."""
_OF_THE_STUDY = frozenset((FIGURES_FOLDER, REPORT_FILE, SUMMARY_FILE))
"""Files and folders of a study besides those of its experiments; its other files begin with a dot."""
_DEVICES = frozenset(
    ("aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in "123456789"))
)
"""Windows reserves these names, with any ending."""
_SEPARATORS = frozenset('/\\:*?"<>|')
"""Characters that separate folders or that Windows does not allow in names."""


def name_problems(path: str, name: str) -> Iterable[Problem]:
    """Yield why an experiment, and so a folder, cannot be called ``name``; ``path`` is the field's path."""
    if not name or set(name) - _CHARACTERS or not set(name) - {"."}:
        yield Problem(path, f"must be letters, digits, '-', '_' or '.' (and more than dots), got {shown(name)}")
    elif name.casefold() in _OF_THE_STUDY:
        yield Problem(path, f"{name!r} is taken: the study writes a file or folder of that name")
    else:
        yield from _folder_problems(path, name)


def study_name_problems(path: str, name: str) -> Iterable[Problem]:
    """Yield why a study, and so its default folder, cannot be called ``name``; ``path`` is the field's path."""
    if not name.strip() or not name.isprintable() or set(name) & _SEPARATORS:
        listed = " ".join(sorted(_SEPARATORS))
        yield Problem(path, f"must be text without control characters and without {listed}, got {shown(name)}")
    else:
        yield from _folder_problems(path, name)


def _folder_problems(path: str, name: str) -> Iterable[Problem]:
    if name[0] in ". " or name[-1] in ". ":
        yield Problem(path, f"must neither begin nor end with a dot or a space, got {shown(name)}")
    elif name.partition(".")[0].casefold() in _DEVICES:
        yield Problem(path, f"{name!r} is reserved by Windows: choose another name")
    elif len(name.encode(errors="surrogatepass")) > _MOST_BYTES:
        yield Problem(path, f"must be at most {_MOST_BYTES} bytes long, got {len(name)} characters: {shown(name)}")
