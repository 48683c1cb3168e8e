"""Orderings that break what holds for every component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from aimcore import Ordering, PatchGrid, Problem, at_least, component
from aimcore.testing.checks import components as checks

if TYPE_CHECKING:
    from decimal import Decimal


@component("sound")
class Sound(Ordering):
    """Raster order."""

    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches)


@component("sound_mapping")
class SoundMapping(Sound):
    """Raster order, with a field that recipes write as a mapping."""

    weights: Mapping[str, float] = attrs.field(factory=lambda: {"a": 0.5})


@component("Hilbert Curve")
class Shouting(Sound):
    """Has a name in capitals, with a blank."""


@component("raster")
class Taken(Sound):
    """Has the name of an ordering that is installed."""


@component("mutant")
class Silent(Sound):
    pass


@component("mutant")
class Demanding(Sound):
    """Has a field without default, and no examples() of its own."""

    steps: int


@component("mutant")
class Mutable(Sound):
    """Has a list as a field, which anybody can append to."""

    steps: list[int] = attrs.field(factory=list)


@component("mutant")
class Remembering(Sound):
    """Has a field that the constructor does not take."""

    calls: int = attrs.field(init=False, default=0)


@component("mutant")
class Unresolvable(Sound):
    """Has a field of a type that only type checkers import."""

    step: Decimal | None = None


@component("mutant")
class Located(Sound):
    """Has a path where recipes hold text."""

    folder: Path = Path("images")


@component("mutant")
class Dividing(Sound):
    """Divides by a field before it knows that the field is not 0."""

    columns: int = 4

    def problems(self) -> Iterable[Problem]:
        if 12 % self.columns:
            yield Problem("columns", "must divide 12")


@component("mutant")
class Overflowing(Sound):
    """Raises to a power before it knows that the field is small."""

    log2_columns: float = 2.0

    def problems(self) -> Iterable[Problem]:
        if 12 % 2.0**self.log2_columns:
            yield Problem("log2_columns", "2 to its power must divide 12")


@component("mutant")
class Misnaming(Sound):
    """Reports a problem of a field that does not exist."""

    columns: int = 4

    def problems(self) -> Iterable[Problem]:
        yield from at_least("colums", self.columns, 1)


@component("mutant")
class Hasty(Sound):
    """Reports only the first problem."""

    rows: int = 4
    columns: int = 4

    def problems(self) -> Iterable[Problem]:
        every = [*at_least("rows", self.rows, 1), *at_least("columns", self.columns, 1)]
        yield from every[:1]


SOUND = (Sound(), SoundMapping())
MUTANTS = (
    (checks.check_its_name_is_in_lower_case_and_free, Shouting()),
    (checks.check_its_name_is_in_lower_case_and_free, Taken()),
    (checks.check_its_docstring_says_what_it_is, Silent()),
    (checks.check_its_examples_can_be_made, Demanding(steps=1)),
    (checks.check_it_is_a_frozen_value, Mutable()),
    (checks.check_its_recipe_holds_every_field, Remembering()),
    (checks.check_its_recipe_gives_it_back, Unresolvable()),
    (checks.check_its_recipe_gives_it_back, Located()),
    (checks.check_bad_numbers_raise_no_other_error_than_invalid_value, Dividing()),
    (checks.check_bad_numbers_raise_no_other_error_than_invalid_value, Overflowing()),
    (checks.check_its_problems_name_its_fields, Misnaming()),
    (checks.check_its_problems_are_reported_together, Hasty()),
)
