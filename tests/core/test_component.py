from collections.abc import Iterable
from typing import ClassVar

import attrs
import pytest
from toy_plugins import ToyHead

from aimcore import Head, InvalidValue, Ordering, Problem, at_least, component, settings, within
from aimcore.contracts.component import Checked
from aimcore.contracts.errors import NoExamples


@component("stairs", paper="arXiv:2401.08541, Table 3b")
class Stairs(Ordering):
    steps: int = 3
    height: float = 0.5

    def permutation(self, grid): ...

    def problems(self) -> Iterable[Problem]:
        yield from at_least("steps", self.steps, 1)
        yield from within("height", self.height, 0, 1)


def test_a_component_knows_its_name_role_and_paper():
    assert (Stairs.name, Stairs.role) == ("stairs", "orderings")
    assert Stairs.paper == "arXiv:2401.08541, Table 3b"


def test_equal_fields_make_equal_components():
    assert Stairs(steps=2) == Stairs(steps=2)
    assert Stairs(steps=2) != Stairs(steps=3)


def test_a_component_is_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Stairs().steps = 4


def test_fields_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        Stairs(4)


def test_an_attribute_that_is_no_field_cannot_be_set_at_all():
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        Stairs().stepz = 4
    assert not hasattr(Stairs(), "__dict__")


def test_all_problems_are_reported_at_once():
    with pytest.raises(InvalidValue) as caught:
        Stairs(steps=0, height=1.5)
    assert caught.value.problems == (
        ("steps", "must be at least 1, got 0"),
        ("height", "must lie between 0 and 1, got 1.5"),
    )


def test_the_message_lists_every_problem_under_the_class():
    with pytest.raises(InvalidValue) as caught:
        Stairs(steps=0, height=1.5)
    assert str(caught.value).splitlines() == [
        "Stairs:",
        "  steps: must be at least 1, got 0",
        "  height: must lie between 0 and 1, got 1.5",
    ]


def test_a_single_problem_fits_one_line():
    with pytest.raises(InvalidValue, match=r"^Stairs: steps: must be at least 1, got 0$"):
        Stairs(steps=0)


@pytest.mark.parametrize("height", [0, 1])
def test_the_bounds_of_within_are_allowed(height):
    assert Stairs(height=height).height == height


def test_a_number_that_is_none_is_no_number_within_bounds():
    assert [problem.path for problem in within("height", float("nan"), 0, 1)] == ["height"]
    assert [problem.path for problem in at_least("steps", float("nan"), 0)] == ["steps"]


def test_a_field_called_name_is_refused():
    with pytest.raises(TypeError, match="'name', which recipes reserve"):

        @component("named")
        class Named(Ordering):
            name: str = "mine"


def test_a_field_called_name_is_refused_in_a_base_class_too():
    @settings
    class Named(Ordering):
        name: str = "x"

    with pytest.raises(TypeError, match="Derived has a field called 'name', which recipes reserve"):

        @component("derived")
        class Derived(Named):
            """Inherits it."""


def test_fields_of_a_base_class_that_is_not_decorated_are_refused_and_not_dropped():
    class Sized(Ordering):
        kind: ClassVar[str] = "no field"
        rows: int = 2
        columns: int = 3

    for decorate in (settings, component("derived")):
        with pytest.raises(
            TypeError,
            match=r"Sized, a base class of Derived, declares rows, columns and is not decorated.*: write @settings",
        ):

            @decorate
            class Derived(Sized):
                """Would go without rows and columns."""


def test_fields_of_a_base_class_between_decorated_ones_are_refused_too():
    class Taller(Stairs):
        height: int = 5

    with pytest.raises(TypeError, match="Taller, a base class of Tallest, declares height and is not decorated"):

        @component("tallest")
        class Tallest(Taller):
            """Would have the default height of Stairs."""


def test_fields_of_a_decorated_base_class_are_kept():
    @settings
    class Sized(Ordering):
        rows: int = 2

    @component("derived")
    class Derived(Sized):
        """Has rows."""

        def permutation(self, grid):
            raise NotImplementedError

    assert Derived(rows=4).rows == 4


def test_a_class_without_a_role_is_refused():
    with pytest.raises(TypeError, match=r"Loose must subclass one of aimcore's roles"):

        @component("loose")
        class Loose:
            pass


def test_a_class_that_lacks_a_roles_method_cannot_be_made():
    @component("nothing")
    class Nothing(Head):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_a_subclass_of_a_component_has_its_own_name_and_the_inherited_fields():
    @component("spiral_stairs")
    class SpiralStairs(Stairs):
        turns: int = 1

    assert (SpiralStairs.name, Stairs.name) == ("spiral_stairs", "stairs")
    assert SpiralStairs(steps=2, turns=3).steps == 2


def test_settings_are_frozen_keyword_only_and_checked():
    @settings
    class Room(Checked):
        width: int

        def problems(self) -> Iterable[Problem]:
            yield from at_least("width", self.width, 1)

    with pytest.raises(InvalidValue, match="Room: width: must be at least 1"):
        Room(width=0)
    with pytest.raises(TypeError, match="positional"):
        Room(1)


def test_the_default_is_the_only_example_of_a_component_with_defaults():
    assert ToyHead.examples() == (ToyHead(),)


def test_a_component_without_defaults_must_give_examples():
    @component("tower")
    class Tower(Stairs):
        floors: int
        doors: int

    with pytest.raises(NoExamples, match=r"Tower has no default for floors, doors, .*: override .*examples\(\)"):
        Tower.examples()
