"""``aimcore diff A B``: show the differences of two recipes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich import box
from rich.table import Table

from aimcore.contracts.errors import InvalidStudy, NewerVersion, RecipeError
from aimcore.contracts.messages import shortened
from aimcore.contracts.scales import SCALES, Scale
from aimcore.io.run_folder import RECIPE_FILE, RunFolder, runs_in
from aimcore.io.terminal import Terminal
from aimcore.recipe import from_recipe, read, to_recipe
from aimcore.recipe.difference import ABSENT, Difference, differences_between, in_words

_DEFAULT_SCALE: Scale = "small"
_WIDEST_PATH = 40
"""Longer paths are broken, so that values fit into 80 columns."""
_LONGEST_VALUE = 2000
"""Largest number of characters of a value in the table."""


class _Side(NamedTuple):
    """One of the two compared recipes."""

    recipe: dict[str, Any]
    note: str | None


def diff_command(left: str, right: str, *, as_json: bool = False) -> int:
    """Print where two recipes differ, with both values.

    Args:
        left: a recipe file, a run's folder, or an experiment of a study, ``STUDY.py:NAME`` or ``STUDY.py:SCALE:NAME``.
        right: the other one.
        as_json: print a list of objects with path, left and right instead of a table.

    Returns:
        0 if they are equal, versions included; else 1.

    Raises:
        AimcoreError: one of the recipes cannot be read.
    """
    sides = [_side(left), _side(right)]
    found = differences_between(*(side.recipe for side in sides))
    console = Terminal()
    if as_json:
        console.print_data([_plain(difference) for difference in found])
        return 1 if found else 0
    for side in sides:
        if side.note:
            console.print(side.note, highlight=False)
    for name, given in (("left", left), ("right", right)):
        console.print(f"{name}: {given}", highlight=False, soft_wrap=True)
    console.print(_table(found) if found else "no differences")
    return 1 if found else 0


def _plain(difference: Difference) -> dict[str, Any]:
    """Convert to a plain value; a missing side is left out."""
    values = {"path": difference.path, "left": difference.left, "right": difference.right}
    return {key: value for key, value in values.items() if value is not ABSENT}


def _table(found: tuple[Difference, ...]) -> Table:
    longest = max(len(difference.path) for difference in found)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("field", overflow="fold", no_wrap=longest <= _WIDEST_PATH)
    for heading in ("left", "right"):
        table.add_column(heading, overflow="fold")
    for path, *values in found:
        table.add_row(path, *(shortened(in_words(value), _LONGEST_VALUE) for value in values))
    return table


def _side(given: str) -> _Side:
    """Return the recipe that ``given`` names, with the defaults of all fields if its components are installed."""
    path = Path(given)
    if os.path.isdir(path):
        return _side(str(_recipe_in(path)))
    if ".py" in given and path.suffix.lower() not in (".json", ".yaml", ".yml"):
        return _Side(_of_study(given), None)
    if not path.suffix and not os.path.exists(path):
        raise InvalidStudy(f"{given} does not exist: give a recipe, a run's folder, or STUDY.py:NAME")
    written = read(path if os.path.exists(path) else given)
    try:
        with warnings.catch_warnings():
            # Versions are part of the comparison here.
            warnings.simplefilter("ignore", NewerVersion)
            whole = to_recipe(from_recipe(written))
    except RecipeError as error:
        if not isinstance(written, dict) or not isinstance(written.get("experiment"), dict):
            raise
        return _Side(written, f"{given} is compared as written, because it cannot be loaded here: {error}")
    versions = {key: written[key] for key in ("aimcore", "plugins") if key in written}
    return _Side({"experiment": whole["experiment"], **versions}, None)


def _recipe_in(folder: Path) -> Path:
    path = RunFolder(folder).recipe
    if path.is_file():
        return path
    runs = [str(run.path) for run in runs_in(folder)]
    hint = f"; it contains the runs {', '.join(runs)}: give one of them" if runs else ""
    raise RecipeError([("", f"{folder} is not a run's folder: it has no {RECIPE_FILE}{hint}")])


def _of_study(given: str) -> dict[str, Any]:
    """Return the recipe of an experiment that a study file defines."""
    from aimcore.running.study_files import load_study, selected

    file, *rest = given.split(":")
    scale = rest.pop(0) if len(rest) > 1 or (rest and rest[0] in SCALES) else _DEFAULT_SCALE
    study = load_study(Path(file), cast(Scale, scale))
    names = [experiment.name for experiment in study.experiments]
    if len(rest) > 1 or (not rest and len(names) > 1):
        raise InvalidStudy(
            f"{given} must name one experiment, {file}:NAME or {file}:SCALE:NAME; there are {', '.join(names)}"
        )
    (experiment,) = selected(study, rest).experiments
    return to_recipe(experiment)
