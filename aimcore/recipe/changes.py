"""Changes to a recipe by path: what ``--set PATH=VALUE`` does."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import RecipeError, UnknownComponent
from aimcore.contracts.field_types import field_types, is_component, is_mapping, is_sequence, item_types, members
from aimcore.contracts.messages import shortened, shown, unknown_field
from aimcore.contracts.structuring import join
from aimcore.experiment import Experiment, statistics_of
from aimcore.recipe.document import from_recipe, to_recipe, with_optimizer_named
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import Plugins, installed


def apply_changes(recipe: Mapping[str, Any], changes: Sequence[str], plugins: Plugins | None = None) -> dict[str, Any]:
    """Return a copy of ``recipe`` with each ``PATH=VALUE`` applied in turn.

    Args:
        recipe: as :func:`aimcore.recipe.to_recipe` gives.
        changes: paths are those of ``experiment`` (``"optimizer.peak_lr=1e-3"``, ``"probes.0.epochs=5"``); values are
            JSON, or else text. A component's name means the component with its default settings.
        plugins: where components are looked up; by default the installed plugins.

    Raises:
        RecipeError: paths do not exist; the message lists the known fields at each.
    """
    plugins = installed() if plugins is None else plugins
    experiment: Any = with_optimizer_named(recipe.get("experiment", {}))
    problems: list[tuple[str, str]] = []
    for change in changes:
        path, separator, text = change.partition("=")
        if not separator or not path.strip():
            problems.append((change, "a change is written PATH=VALUE"))
            continue
        if (fault := _json_fault(text)) is not None:
            problems.append((path.strip(), fault))
            continue
        try:
            experiment = _Change(_parsed(text), plugins).applied(experiment, Experiment, path.strip().split("."))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems, owner="--set")
    return {**recipe, "experiment": experiment}


def changed(experiment: Experiment, changes: Sequence[str], plugins: Plugins | None = None) -> Experiment:
    """Return ``experiment`` with each ``PATH=VALUE`` applied in turn; see :func:`apply_changes`.

    If ``data.train`` changes, mean and standard deviation of the pixels become those of the new source, unless they
    were set explicitly.

    Raises:
        RecipeError: a path does not exist, or a value is invalid.
    """
    recipe = apply_changes(to_recipe(experiment, plugins), changes, plugins)
    data, own = experiment.data, statistics_of(experiment.data.train)
    if any(change.startswith("data.train") for change in changes) and (data.mean, data.std) == own:
        chosen = [change.split("=")[0].strip() for change in changes]
        for name in {"mean", "std"} - {path.split(".")[1] for path in chosen if path.startswith("data.")}:
            del recipe["experiment"]["data"][name]
    try:
        return from_recipe(recipe, plugins)
    except RecipeError as error:
        raise RecipeError(error.problems, owner="--set") from None


def _json_fault(text: str) -> str | None:
    """Return why ``text``, which has the brackets of a JSON list or object, is not JSON; None for all other text."""
    text = text.strip()
    if not (text[:1] + text[-1:] == "[]" or (text[:1] + text[-1:] == "{}" and ":" in text)):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return (
            f"{shown(text)} is not JSON ({shown(error)}): write names and texts in double quotes, for example "
            """--set 'probes=[{"name": "knn"}]'"""
        )
    return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return text


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


@attrs.frozen
class _Change:
    """A change that is applied recursively. It follows the declared types, because a recipe may omit fields."""

    value: Any
    plugins: Plugins

    def applied(self, node: Any, kind: Any, steps: Sequence[str], path: str = "") -> Any:
        """Return ``node``, declared as ``kind``, with the value set at the path ``steps`` below it."""
        if not steps:
            return self._bare_name(kind)
        step, here = steps[0], join(path, steps[0])
        if isinstance(node, list | tuple):
            index = _index(step, node, here)
            below = item_types(_member(kind, is_sequence), len(node))[index]
            return [*node[:index], self.applied(node[index], below, steps[1:], here), *node[index + 1 :]]
        cls = self._class(node, kind, path)
        if cls is not None:
            return self._in_class(_as_mapping(node), cls, steps, path)
        if isinstance(node, Mapping):
            below = (*getattr(_member(kind, is_mapping), "__args__", ()), Any, Any)[1]
            return {**node, step: self.applied(node.get(step), below, steps[1:], here)}
        raise RecipeError([(here, f"leads nowhere: {path} is {shortened(json.dumps(node))}, which has no fields")])

    def _bare_name(self, kind: Any) -> Any:
        roles = [member for member in members(kind) if is_component(member)]
        named = isinstance(self.value, str) and len(roles) == len(members(kind))
        return {"name": self.value} if named else self.value

    def _class(self, node: Any, kind: Any, path: str) -> type[Any] | None:
        """Return the class whose fields ``node`` holds; None if it is a plain value or a free mapping."""
        for member in members(kind):
            if is_component(member):
                name = _as_mapping(node).get("name")
                return self._component(member, name, path) if isinstance(name, str) else None
            if attrs.has(member):
                return member
        return None

    def _component(self, kind: type[Component], name: str, path: str) -> type[Component]:
        try:
            return self.plugins.registry(kind.role).get(name)
        except UnknownComponent as error:
            raise RecipeError([(path, str(error))]) from error

    def _in_class(self, node: Mapping[str, Any], cls: type[Any], steps: Sequence[str], path: str) -> dict[str, Any]:
        types = {"name": str} if is_component(cls) else {}
        types |= field_types(cls)
        step = steps[0]
        here = join(path, step)
        if step not in types:
            raise RecipeError([(here, unknown_field(step, list(types)))])
        child = node[step] if step in node else _default(cls, step)
        return {**node, step: self.applied(child, types[step], steps[1:], here)}


def _as_mapping(node: Any) -> Mapping[str, Any]:
    """Return ``node`` as a mapping; it may also be a component's name, or absent."""
    if isinstance(node, str):
        return {"name": node}
    return node if isinstance(node, Mapping) else {}


def _member(kind: Any, wanted: Any) -> Any:
    return next((member for member in members(kind) if wanted(member)), Any)


def _index(step: str, node: Sequence[Any], here: str) -> int:
    if not step.isdecimal() or int(step) >= len(node):
        last = f"0 to {len(node) - 1}" if node else "none: the list is empty"
        raise RecipeError([(here, f"index out of range; there are {last}")])
    return int(step)


def _default(cls: type[Any], name: str) -> Any:
    """Return a field's default as plain values; None if it has no default."""
    default: Any = getattr(attrs.fields(cls), name).default if name != "name" else None
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return None if default.takes_self else plain(default.factory())
    return None if default is attrs.NOTHING else plain(default)
