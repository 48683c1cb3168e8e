"""Recipes as text and as files."""

import codecs
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from aimcore.contracts.errors import RecipeError
from aimcore.contracts.messages import shown
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import write_atomically
from aimcore.io.locations import open_location
from aimcore.recipe.document import TOO_DEEP, from_recipe, is_too_deep, to_recipe
from aimcore.registry.plugins import Plugins

_YAML = (".yaml", ".yml")
_SUFFIXES = (".json", *_YAML)
_MOST_BYTES = 2**22
"""Largest size of a recipe; usual ones have a few thousand bytes."""

_NUMBER_STARTS = "-+.0123456789"
_CORE_SCHEMA = (
    ("null", r"~|null|", ("~", "n", "")),
    ("bool", r"true|false", ("t", "f")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", _NUMBER_STARTS),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", _NUMBER_STARTS),
)
"""Types of unquoted text: tag, pattern, first characters."""

Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _with_core_schema(others: Resolvers) -> Resolvers:
    """Return PyYAML's table of resolvers (by first character): ``others``, then YAML 1.2's core schema."""
    table = {start: list(rules) for start, rules in others.items()}
    for tag, pattern, starts in _CORE_SCHEMA:
        for start in starts:
            table.setdefault(start, []).append((f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$")))
    return table


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2: ``1e-3`` is a number, ``no`` and ``2024-01-01`` are text. PyYAML itself reads YAML 1.1."""

    yaml_implicit_resolvers = _with_core_schema({})

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, because a few lines of them can expand to gigabytes, and tags, which recipes do not use."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases (*)", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags (!)", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that occurs twice."""
        made = super().construct_mapping(node, deep=deep)
        if len(made) != len(node.value):
            _unique((self.construct_object(key, deep=True), None) for key, _ in node.value)
        return made


def _refused(what: str, event: Any) -> RecipeError:
    place = f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"
    return RecipeError([("", f"{place}: {what} are not allowed in recipes: write the value itself")])


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as a value of another type."""

    yaml_implicit_resolvers = _with_core_schema(yaml.SafeDumper.yaml_implicit_resolvers)


def dumps(experiment: Experiment, plugins: Plugins | None = None) -> str:
    """Return the recipe of ``experiment`` as JSON text.

    Raises:
        RecipeError: the experiment holds values that a recipe cannot hold.
    """
    return _to_json(to_recipe(experiment, plugins))


def loads(text: str, plugins: Plugins | None = None) -> Experiment:
    """Return the experiment of a recipe in JSON.

    Raises:
        RecipeError: it is not JSON, or not a valid recipe; lists all problems.
    """
    return from_recipe(_parsed(text, is_yaml=False), plugins)


def save(path: str | Path, experiment: Experiment, plugins: Plugins | None = None) -> None:
    """Write the recipe of ``experiment`` to ``path`` (.json, .yaml or .yml; a local path or an fsspec URL).

    A local file is replaced at once or not at all.

    Raises:
        RecipeError: the suffix is unknown, or the experiment holds values that a recipe cannot hold.
        LocationError: the URL is refused, see :mod:`aimcore.io.locations`.
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
    """Return the experiment of the recipe at ``path``.

    Raises:
        RecipeError: the file does not exist, or is not a valid recipe; lists all problems.
    """
    return from_recipe(read(path), plugins)


def read(path: str | Path) -> Any:
    """Return the plain values in the recipe file at ``path``, unchecked.

    Raises:
        RecipeError: the file cannot be read, or it is neither JSON nor YAML.
        LocationError: the URL is refused, see :mod:`aimcore.io.locations`.
    """
    is_yaml = _suffix(path) in _YAML
    try:
        with open_location(path) as file:
            content: bytes = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise RecipeError([("", f"there is no file {path}")]) from error
    except OSError as error:
        why = "it is a folder" if isinstance(error, IsADirectoryError) else str(error)
        raise RecipeError([("", f"cannot read {path}: {why}")]) from error
    return _parsed(_text(content, path), is_yaml=is_yaml, where=f"{path} ")


def _text(content: bytes, path: str | Path) -> str:
    """Decode the file's content, without the byte-order mark that some editors write."""
    if len(content) > _MOST_BYTES:
        raise RecipeError([("", f"{path} is larger than {_MOST_BYTES:,} bytes: it is no recipe")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_other = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # UTF-32 may begin so too
        hint = "it looks like UTF-16 or UTF-32: save it as UTF-8" if is_other else "a recipe is JSON or YAML in UTF-8"
        raise RecipeError([("", f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); {hint}")]) from error


def _suffix(path: str | Path) -> str:
    suffix = Path(str(path)).suffix.lower()
    if suffix not in _SUFFIXES:
        raise RecipeError([("", f"{path} must end in one of {', '.join(_SUFFIXES)}")])
    return suffix


def _to_json(recipe: Mapping[str, Any]) -> str:
    return json.dumps(recipe, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_yaml(recipe: Mapping[str, Any]) -> str:
    # ASCII only: PyYAML writes Unicode's line breaks (U+0085, U+2028) in a way that reads back as other characters.
    return yaml.dump(recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)


def _parsed(text: str, *, is_yaml: bool, where: str = "") -> Any:
    language = "YAML" if is_yaml else "JSON"
    try:
        value = yaml.load(text, Loader=_Loader) if is_yaml else json.loads(text, object_pairs_hook=_unique)
    except RecipeError as error:
        owner = f"{where.strip()}: " if where else ""
        raise RecipeError([(path, f"{owner}{message}") for path, message in error.problems]) from None
    except RecursionError:
        raise RecipeError([("", f"{where}{TOO_DEEP}")]) from None
    except (ValueError, yaml.YAMLError) as error:
        # For an integer of thousands of digits, Python's own message suggests raising the limit.
        why = "a number has too many digits" if "integer string conversion" in str(error) else str(error)
        raise RecipeError([("", f"{where}is not {language}: {why}")]) from error
    if is_too_deep(value):
        raise RecipeError([("", f"{where}{TOO_DEEP}")])
    return value


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a mapping; a key that occurs twice is an error, because the parsers would keep the last value."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise RecipeError([("", f"the key {shown(key)} occurs twice in one mapping")])
        made[key] = value
    return made
