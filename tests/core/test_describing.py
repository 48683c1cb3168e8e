"""The description of a component: fields, types, defaults, meanings, choices, and where it is written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from toy_plugins import toy_plugins

from aimcore import Experiment, settings
from aimcore.cli.description import (
    describe_component,
    describe_settings,
    field_docs,
    location_of,
    paragraphs_of,
    type_text,
)
from aimcore.contracts.component import Checked


@settings
class Inner(Checked):
    """Settings in settings."""

    rate: float = 0.5
    """How fast,
    and ``how`` often."""


@settings
class Outer(Checked):
    """A line.

    More, about :class:`aimcore.Inner` and ``code``.
    """

    inner: Inner = Inner(rate=0.25)
    maybe: Inner | None = None
    kind: Literal["a", "b"] | None = "a"
    size: int


def test_fields_have_types_defaults_and_meanings() -> None:
    inner, maybe, kind, size = describe_settings("outer", Outer, toy_plugins()).fields
    assert (size.path, size.type, size.required) == ("size", "int", True)
    assert (kind.type, kind.default) == ("'a' | 'b' | None", "a")
    assert (maybe.type, maybe.default, inner.default) == ("Inner | None", None, {"rate": 0.25})


def test_fields_of_a_default_stand_below_it_with_its_values() -> None:
    inner, maybe, *_ = describe_settings("outer", Outer, toy_plugins()).fields
    assert [(field.path, field.default, field.meaning) for field in inner.fields] == [
        ("inner.rate", 0.25, "How fast, and how often.")
    ]
    assert [(field.path, field.default) for field in maybe.fields] == [("maybe.rate", 0.5)]


def test_marks_of_the_docstring_are_taken_away() -> None:
    assert paragraphs_of(Outer) == ["A line.", "More, about aimcore.Inner and code."]


def test_an_example_in_a_docstring_keeps_its_lines() -> None:
    class Shown:
        """One thing
        on two lines.

        >>> 1 + 1  # ``two``
        2
        """

    assert paragraphs_of(Shown) == ["One thing on two lines.", ">>> 1 + 1  # ``two``\n2"]


def test_a_field_tells_the_components_it_may_be() -> None:
    plugins = toy_plugins()
    fields = {field.path: field for field in describe_settings("experiment", Experiment, plugins).fields}
    for path, role in (("trunk", "trunks"), ("probes", "probes")):
        assert fields[path].choices == tuple(f"{role}/{name}" for name in plugins.registry(role).names())
        assert fields[path].choices


def test_a_component_tells_where_it_comes_from() -> None:
    described = describe_component("orderings", "spiral")
    assert (described.distribution, described.plugin) == ("aimcore", "orderings")
    assert described.python == "aimcore_orderings.spiral.Spiral"
    assert described.source is not None
    assert described.source.file.replace("\\", "/") == "aimcore_orderings/spiral.py"
    assert described.paper.startswith("arXiv:2401.08541")


def test_the_line_is_that_of_the_class() -> None:
    from aimcore_orderings import Spiral

    location = location_of(Spiral)
    assert location is not None
    assert location.line == inspect.getsourcelines(Spiral)[1]


def test_a_class_without_a_file_is_reported_without_location_and_meanings() -> None:
    made: dict[str, Any] = {}
    exec("class Made:\n    'Made up.'\n    size: int = 1\n    'How large.'\n", {"__name__": "nowhere"}, made)
    assert location_of(made["Made"]) is None
    assert field_docs(made["Made"]) == {}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "int"),
        (type(None), "None"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Mapping[str, float] | None, "Mapping[str, float] | None"),
        (Literal["uniform"] | int, "'uniform' | int"),
        (list[Inner], "list[Inner]"),
    ],
)
def test_types_are_reported_as_they_are_written(kind: Any, text: str) -> None:
    assert type_text(kind) == text


def test_everything_installed_can_be_described() -> None:
    from aimcore.registry.plugins import installed

    for role, registry in installed().registries.items():
        for name in registry.names():
            assert describe_component(role, name).paragraphs[0]
