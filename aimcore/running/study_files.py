"""Studies from files: a Python file that defines ``study(scale) -> Study``, or a recipe, which is one experiment."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, cast

import attrs

from aimcore import recipe
from aimcore.contracts.errors import TRACEBACK, AimcoreError, InvalidStudy
from aimcore.contracts.messages import did_you_mean, shortened, shown
from aimcore.contracts.scales import SCALES, Scale
from aimcore.experiment import Experiment, Study
from aimcore.io.run_folder import RunFolder, runs_in
from aimcore.recipe import load

_LONGEST = 2000
"""Characters of an exception's message that are shown."""
RECIPE_SUFFIXES = (".json", ".yaml", ".yml")


def is_recipe(path: Path) -> bool:
    """Whether ``path`` names a recipe rather than a study file."""
    return path.suffix.lower() in RECIPE_SUFFIXES


def load_study(path: Path, scale: Scale) -> Study:
    """Load the study of the Python file or recipe at ``path``.

    Args:
        path: a ``.py`` file that defines ``study(scale) -> Study``, or a recipe (``.json``, ``.yaml``), which becomes
            a study of one experiment and ignores the scale.
        scale: the size at which a study file builds its study.

    Raises:
        InvalidStudy: the file does not exist, it defines no ``study``, its code raises an exception (which is the
            cause), ``study`` does not return a study, or the scale is unknown.
    """
    if scale not in SCALES:
        raise InvalidStudy(f"unknown scale {scale!r}{did_you_mean(scale, SCALES)}; there are {', '.join(SCALES)}")
    # Unlike Path.is_dir, these are also false for a name that is too long for the system.
    if os.path.isdir(path):
        raise InvalidStudy(f"{path} is a folder{_recipes_in(path)}. Give a study (.py) or a recipe (.json, .yaml)")
    if not os.path.isfile(path):
        if os.path.exists(path):
            raise InvalidStudy(f"{path} is not a regular file. Give a study (.py) or a recipe (.json, .yaml)")
        raise InvalidStudy(
            f"no such file: {shortened(str(path), _LONGEST)}{_similar(path)}. "
            "Give a study (.py) or a recipe (.json, .yaml)"
        )
    if is_recipe(path):
        return _study_of_recipe(path)
    if path.suffix != ".py":
        raise InvalidStudy(f"{path} is neither a study (.py) nor a recipe ({', '.join(RECIPE_SUFFIXES)})")
    with _UsersCode(path):
        study = _study_function(_import_file(path), path)(scale)
        if not isinstance(study, Study):
            raise InvalidStudy(f"study({scale!r}) of {path} must return an aimcore.Study, it returned {shown(study)}")
    return study


def _similar(path: Path) -> str:
    known = [sibling.name for sibling in path.parent.iterdir()] if os.path.isdir(path.parent) else []
    near = get_close_matches(path.name, known, n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


def _recipes_in(folder: Path) -> str:
    found = [run.recipe for run in (RunFolder(folder), *runs_in(folder)) if run.recipe.exists()]
    return f"; to run what was run there again, give {' or '.join(map(str, found))}" if found else ""


def _study_of_recipe(path: Path) -> Study:
    experiment = load(path)
    return Study(name=experiment.name, source=f"recipe {path}", experiments=[experiment])


def _study_function(module: ModuleType, path: Path) -> Callable[[Scale], Any]:
    function = getattr(module, "study", None)
    if not callable(function):
        raise InvalidStudy(f"{path} defines no function study(scale) -> Study; add one, or name another file")
    try:
        inspect.signature(function).bind(SCALES[0])
    except TypeError as error:
        where = f"{path}, line {line}" if (line := _first_line(function)) else str(path)
        raise InvalidStudy(f"{where}: study must take the scale, 'def study(scale):' ({error})") from error
    return function  # type: ignore[no-any-return]


def _first_line(function: Any) -> int | None:
    code = getattr(function, "__code__", None)
    return None if code is None else code.co_firstlineno


def _import_file(path: Path) -> ModuleType:
    """Import a study file as a separate module."""
    name = f"aimcore_study_{path.stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # a .py file always has one
    module = importlib.util.module_from_spec(spec)
    # attrs and pickle look a class's module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class _UsersCode:
    """A context that runs a study file's code: every exception becomes an InvalidStudy with its file and line.

    Files next to the study can be imported in the block, as in a script. The exception is the error's cause.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._importable = _importable(path.resolve().parent)

    def __enter__(self) -> None:
        self._importable.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._importable.__exit__(None, None, None)
        if isinstance(error, AimcoreError):  # it says what to do; the place is printed below it
            if not isinstance(error, InvalidStudy):
                error.add_note(f"in {self._where(error, with_origin=False)}")
        elif error is not None and not isinstance(error, KeyboardInterrupt):  # libraries in Rust raise BaseException
            # Libraries that watch for the end of the program, such as wandb, raise SystemExit themselves.
            where, what = self._where(error, with_origin=not isinstance(error, SystemExit)), _what(error)
            raise InvalidStudy(f"{where}: {what} (the whole traceback: set {TRACEBACK}=1)") from error

    def _where(self, error: BaseException, *, with_origin: bool) -> str:
        """Return the failing line of the study file, and the place in another file where the error was raised."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}, line {error.lineno}" if error.lineno else error.filename
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        own = [frame for frame in frames if Path(frame.filename).resolve() == self._path.resolve()]
        if not own:
            return str(self._path)
        last = frames[-1]
        origin = f" (in {last.filename}, line {last.lineno})" if with_origin and last is not own[-1] else ""
        return f"{self._path}, line {own[-1].lineno}{origin}"


def _what(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args[:1] and error.args[0] in SCALES:
        return f"KeyError: {error.args[0]!r}, a scale: if the study does not define it, choose another with --scale"
    if isinstance(error, SystemExit):
        return f"ends the program (SystemExit: {shown(error.code)}); a study file only defines a study"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"imports {error.name}, which is not installed: install what has it"
    return shortened(traceback.format_exception_only(error)[-1].strip(), _LONGEST)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have changed the path itself
            sys.path.remove(str(folder))


def selected(study: Study, names: Sequence[str]) -> Study:
    """Return the study with only the experiments ``names`` to run; an empty ``names`` selects all.

    The others do not run, but remain known: see :attr:`aimcore.Study.left_out`.

    Raises:
        InvalidStudy: no experiment has one of the names.
    """
    known = [experiment.name for experiment in study.experiments]
    unknown = [name for name in names if name not in known]
    if unknown:
        asked = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        raise InvalidStudy(f"no experiment of {study.name!r} is called {asked}; there are {', '.join(known)}")
    if not names:
        return study
    left_out = [*study.left_out, *(experiment for experiment in study.experiments if experiment.name not in names)]
    return _with(study, [experiment for experiment in study.experiments if experiment.name in names], left_out)


def changed(study: Study, changes: Sequence[str]) -> Study:
    """Return the study with ``PATH=VALUE`` applied to the recipe of every experiment.

    Raises:
        RecipeError: a path does not exist or a value is invalid; the message names it.
    """
    if not changes:
        return study

    experiments = [recipe.changed(experiment, changes) for experiment in study.experiments]
    return _with(study, experiments, [_changed_if_it_can(experiment, changes) for experiment in study.left_out])


def _changed_if_it_can(experiment: Experiment, changes: Sequence[str]) -> Experiment:
    """Return the changed experiment, or the experiment itself if the changes are invalid: it does not run."""
    try:
        return recipe.changed(experiment, changes)
    except AimcoreError:
        return experiment


def _with(study: Study, experiments: Sequence[Experiment], left_out: Sequence[Experiment]) -> Study:
    names = {experiment.name for experiment in experiments}
    paper = {name: scores for name, scores in study.paper.items() if name in names}
    return cast(Study, attrs.evolve(cast(Any, study), experiments=experiments, left_out=left_out, paper=paper))
