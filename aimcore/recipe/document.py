"""The recipe document: an experiment with schema version, package versions, and the plugin of each component."""

import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from packaging.version import InvalidVersion, Version

from aimcore.contracts.component import Component
from aimcore.contracts.errors import NewerVersion, Problem, RecipeError
from aimcore.contracts.messages import MOST_REPORTED, printable, shown, unknown_field
from aimcore.experiment import DEFAULT_OPTIMIZER, Experiment
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import nodes, plain, round_trip_problems, unwritable
from aimcore.registry.plugins import Plugins, installed

SCHEMA_VERSION = 1
_MOST_LEVELS = 50
"""Largest depth of nested lists and mappings. Recipes have about ten levels."""
TOO_DEEP = f"is nested in more than {_MOST_LEVELS} levels: it is no recipe"
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""PyPA's rule for names. A name that an error suggests to install must not be an option of pip."""
_MOST_DISTRIBUTIONS = 1000
"""Limit, because each name is looked up among the installed distributions."""
_KEYS = ["schema_version", "aimcore", "plugins", "experiment"]


def to_recipe(experiment: Experiment, plugins: Plugins | None = None) -> dict[str, Any]:
    """Convert ``experiment`` to plain values, with every field and the versions of the packages that supply it.

    Args:
        experiment: what to write.
        plugins: the plugins that supply its components; by default the installed ones.

    Raises:
        RecipeError: it holds values that a recipe cannot hold (a tensor, NaN, a class of no plugin); lists their paths.
    """
    plugins = installed() if plugins is None else plugins
    problems = tuple(unwritable(experiment, plugins))
    if problems:
        raise RecipeError(problems, owner="experiment")
    return {
        "schema_version": SCHEMA_VERSION,
        "aimcore": version("aimcore"),
        "plugins": _used(experiment, plugins),
        "experiment": plain(experiment),
    }


def _used(experiment: Experiment, plugins: Plugins) -> dict[str, Any]:
    components = {(node.role, node.name) for _, node in nodes(experiment) if isinstance(node, Component)}
    used: dict[str, Any] = {}
    for role, name in sorted(components):
        supplier = plugins.registry(role).supplier_of(name)
        entry = used.setdefault(supplier.distribution, {"version": supplier.version, "components": []})
        entry["components"].append(f"{role}/{name}")
    return dict(sorted(used.items()))


def from_recipe(recipe: Mapping[str, Any], plugins: Plugins | None = None) -> Experiment:
    """Return the experiment that ``recipe`` records.

    Args:
        recipe: plain values, as :func:`to_recipe` returns them.
        plugins: where components are looked up; by default the installed plugins.

    Raises:
        RecipeError: it is invalid; lists all problems, each with its path below ``experiment``.

    Warns:
        NewerVersion: a plugin, or aimcore, was newer when the recipe was written.
    """
    plugins = installed() if plugins is None else plugins
    problems = tuple(_problems_of_document(recipe))
    if problems:
        raise RecipeError(problems)
    for text in _newer(recipe, plugins):
        warnings.warn(text, NewerVersion, stacklevel=2)
    fields = with_optimizer_named(recipe["experiment"])
    experiment: Experiment = structured(fields, Experiment, plugins, dict(_origins(recipe, plugins)))
    return experiment


def with_optimizer_named(experiment: Any) -> Any:
    """Return the fields of an experiment; an optimizer without a name, as in aimcore 0.1, gets its present name."""
    optimizer = experiment.get("optimizer") if isinstance(experiment, Mapping) else None
    if not isinstance(optimizer, Mapping) or "name" in optimizer:
        return experiment
    return {**experiment, "optimizer": {"name": DEFAULT_OPTIMIZER, **optimizer}}


def checked(experiment: Experiment, plugins: Plugins | None = None) -> Experiment:
    """Return ``experiment`` after a round trip through its recipe: every value has its declared type, nothing is lost.

    Raises:
        RecipeError: values do not have their declared type, or change in the round trip; lists their paths.
    """
    again = from_recipe(to_recipe(experiment, plugins), plugins)
    problems = tuple(round_trip_problems(experiment, again))
    if problems:
        raise RecipeError(problems, owner="experiment")
    return again


def _problems_of_document(recipe: object) -> Iterator[Problem]:
    if not isinstance(recipe, Mapping):
        yield Problem("", f"must be a mapping with {', '.join(_KEYS)}, got {shown(recipe)}")
        return
    if is_too_deep(recipe):
        yield Problem("", TOO_DEEP)
        return
    unknown = [key for key in recipe if key not in _KEYS]
    yield from (Problem(str(key), unknown_field(key, _KEYS)) for key in unknown[:MOST_REPORTED])
    if len(unknown) > MOST_REPORTED:
        yield Problem("", f"{len(unknown) - MOST_REPORTED:,} more unknown fields")
    written = recipe.get("schema_version")
    if type(written) is not int or written != SCHEMA_VERSION:
        yield Problem("schema_version", f"must be {SCHEMA_VERSION}, got {shown(written)}; a newer aimcore may read it")
    if "experiment" not in recipe:
        yield Problem("experiment", "is required")
    if not isinstance(recipe.get("aimcore", ""), str):
        yield Problem("aimcore", f"must be a version in quotes, got {shown(recipe['aimcore'])}")
    yield from _problems_of_plugins(recipe.get("plugins", {}))


def is_too_deep(value: Any) -> bool:
    """Whether lists and mappings are nested deeper than in any recipe, which could exceed Python's recursion limit."""
    layer = [value]
    for _ in range(_MOST_LEVELS):
        below = [item.values() if isinstance(item, Mapping) else item for item in layer if _is_nested(item)]
        layer = [item for items in below for item in items]
    return any(map(_is_nested, layer))


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _problems_of_plugins(written: Any) -> Iterator[Problem]:
    if not isinstance(written, Mapping):
        yield Problem("plugins", f"must map distributions to what they supply, got {shown(written)}")
        return
    if len(written) > _MOST_DISTRIBUTIONS:
        yield Problem("plugins", f"must name at most {_MOST_DISTRIBUTIONS} distributions, got {len(written):,}")
        return
    for distribution, entry in written.items():
        if not isinstance(distribution, str) or not _DISTRIBUTION.fullmatch(distribution):
            yield Problem("plugins", f"{shown(distribution)} is not the name of a distribution")
        fits = isinstance(entry, Mapping) and isinstance(entry.get("version"), str)
        if not fits or not isinstance(entry.get("components", []), list):
            yield Problem(
                f"plugins.{distribution}", f"must have a version and a list of components, got {shown(entry)}"
            )


def _newer(recipe: Mapping[str, Any], plugins: Plugins) -> Iterator[str]:
    """Yield a warning for each package that was newer when the recipe was written."""
    written = {name: entry["version"] for name, entry in recipe.get("plugins", {}).items()}
    here = {name: plugins.version_of(name) for name in written}
    if "aimcore" in recipe:
        written["aimcore"], here["aimcore"] = recipe["aimcore"], version("aimcore")
    for name, then in written.items():
        now = here[name]
        if now is not None and _is_newer(then, now):
            newer = f"{name} {printable(then)}"
            yield f"the recipe was written with {newer}; installed is {now}, which may read it differently"


def _is_newer(one: str, other: str) -> bool:
    try:
        return Version(one) > Version(other)
    except InvalidVersion:
        return False


def _origins(recipe: Mapping[str, Any], plugins: Plugins) -> Iterator[tuple[str, str]]:
    """Yield each component of the recipe with a hint: the package that supplied it and the command to install it."""
    for distribution, entry in recipe.get("plugins", {}).items():
        here, then = plugins.version_of(distribution), entry["version"]
        hint = f"the recipe has it from {distribution} {then}"
        if here is None:
            hint += f", which is not installed: run pip install {distribution}"
        elif here != then:
            hint += f"; installed is {here}"
        yield from ((str(component), hint) for component in entry.get("components", []))
