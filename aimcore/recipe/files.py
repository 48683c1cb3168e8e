"""Recipes as text and as files."""

import json
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from aimcore.errors import RecipeError
from aimcore.experiment import Experiment
from aimcore.files import write_atomically
from aimcore.locations import open_location
from aimcore.plugins import Plugins
from aimcore.recipe.document import from_recipe, to_recipe

_YAML = (".yaml", ".yml")
_SUFFIXES = (".json", *_YAML)


_NUMBER_STARTS = "-+.0123456789"
_CORE_SCHEMA = (
    ("null", r"~|null|", ("~", "n", "")),
    ("bool", r"true|false", ("t", "f")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", _NUMBER_STARTS),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", _NUMBER_STARTS),
)
"""What unquoted text stands for: tag, pattern, first characters."""

Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _with_core_schema(others: Resolvers) -> Resolvers:
    """PyYAML's table of resolvers (by first character): ``others``, then YAML 1.2's core schema."""
    table = {start: list(rules) for start, rules in others.items()}
    for tag, pattern, starts in _CORE_SCHEMA:
        for start in starts:
            table.setdefault(start, []).append((f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$")))
    return table


class _Loader(yaml.SafeLoader):
    """YAML 1.2: ``1e-3`` is a number, ``no`` and ``2024-01-01`` are text. PyYAML alone reads 1.1."""

    yaml_implicit_resolvers = _with_core_schema({})

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        made = super().construct_mapping(node, deep=deep)
        if len(made) != len(node.value):
            _unique((self.construct_object(key, deep=True), None) for key, _ in node.value)
        return made


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""

    yaml_implicit_resolvers = _with_core_schema(yaml.SafeDumper.yaml_implicit_resolvers)


def dumps(experiment: Experiment, plugins: Plugins | None = None) -> str:
    """The recipe of ``experiment`` as JSON text.

    Raises:
        RecipeError: it holds something that no recipe can.
    """
    return _to_json(to_recipe(experiment, plugins))


def loads(text: str, plugins: Plugins | None = None) -> Experiment:
    """The experiment of a recipe in JSON.

    Raises:
        RecipeError: it is not JSON, or not a recipe; everything wrong is listed.
    """
    return from_recipe(_from_json(text), plugins)


def save(path: str | Path, experiment: Experiment, plugins: Plugins | None = None) -> None:
    """Write the recipe of ``experiment`` to ``path`` (.json, .yaml or .yml; a local path or an fsspec URL).

    A local file is replaced at once or not at all.

    Raises:
        RecipeError: the ending is another, or the experiment holds something that no recipe can.
        LocationError: the URL is refused, see :mod:`aimcore.locations`.
    """
    suffix = _suffix(path)
    recipe = to_recipe(experiment, plugins)
    text = _to_yaml(recipe) if suffix in _YAML else _to_json(recipe)
    if "://" in str(path):
        with open_location(path, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        write_atomically(Path(path), text)


def load(path: str | Path, plugins: Plugins | None = None) -> Experiment:
    """The experiment of the recipe at ``path``.

    Raises:
        RecipeError: there is no such file, or it is no recipe; everything wrong is listed.
    """
    return from_recipe(read(path), plugins)


def read(path: str | Path) -> Any:
    """The plain values in the recipe file at ``path``, unchecked.

    Raises:
        RecipeError: there is no such file, or it is neither JSON nor YAML.
    """
    suffix = _suffix(path)
    try:
        with open_location(path, "r", encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise RecipeError([("", f"there is no file {path}")]) from error
    return _from_yaml(text) if suffix in _YAML else _from_json(text)


def _suffix(path: str | Path) -> str:
    suffix = Path(str(path)).suffix.lower()
    if suffix not in _SUFFIXES:
        raise RecipeError([("", f"{path} must end in one of {', '.join(_SUFFIXES)}")])
    return suffix


def _to_json(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_yaml(recipe: Mapping[str, Any]) -> str:
    # ASCII only: PyYAML writes Unicode's own line breaks (U+0085, U+2028) so that they come back as others.
    return yaml.dump(recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise RecipeError([("", f"is not JSON: {error}")]) from error


def _from_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeError([("", f"is not YAML: {error}")]) from error


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping, where a key that stands twice is an error: the parsers would keep the last."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise RecipeError([("", f"the key {key!r} stands twice in one mapping")])
        made[key] = value
    return made
