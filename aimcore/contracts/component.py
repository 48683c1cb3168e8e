"""Components: frozen, keyword-only, typed classes that are registry entry, configuration and value at once.

A component holds plain values (numbers, strings, tuples, other components), never a tensor. Its ``build`` method makes
the module that it configures.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import attrs

from aimcore.contracts.errors import InvalidValue, NoExamples, Problem
from aimcore.contracts.messages import shown, unknown_field
from aimcore.contracts.type_checks import fit_fields

C = TypeVar("C", bound=type[Any])


class Checked:
    """A value whose constructor checks its fields and reports all problems at once."""

    __slots__ = ()

    def problems(self) -> Iterable[Problem]:
        """Yield every problem of this value; override it to add checks.

        It is called after the types of all fields have been checked.
        """
        return ()

    def __attrs_post_init__(self) -> None:
        found = tuple(Problem(*misfit) for misfit in fit_fields(self)) or tuple(self.problems())
        if found:
            raise InvalidValue(type(self).__name__, found)


class Component(Checked):
    """Base of every role: a value that a registry can list and a recipe can name."""

    __slots__ = ()

    role: ClassVar[str]
    """Name of the registry of this role, in the plural: ``"orderings"``."""
    name: ClassVar[str]
    """Name of the component in that registry and in recipes."""
    paper: ClassVar[str] = ""
    """Its source, e.g. ``"arXiv:2401.08541, Table 3b"``; empty for an idea of the plugin's own."""

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return small instances for the conformance kit; override it if defaults are large or absent.

        Return ``()`` if the component needs external data, such as a file of the user's.

        Raises:
            NoExamples: a field has no default, and this method is not overridden.
        """
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)  # type: ignore[arg-type]  # @component makes it so
        without = [field.name for field in fields if field.default is attrs.NOTHING]
        if without:
            raise NoExamples(
                f"{cls.__name__} has no default for {', '.join(without)}, so there is no example of it to check: "
                "override its class method examples() to return small instances, or () if it needs external data"
            )
        return (cls(),)


def _define(cls: C) -> C:
    for base in cls.__mro__[1:]:
        lost = [name for name, kind in inspect.get_annotations(base).items() if "ClassVar" not in str(kind)]
        if lost and "__attrs_attrs__" not in vars(base):  # attrs.has also accepts inherited fields
            raise TypeError(
                f"{base.__name__}, a base class of {cls.__name__}, declares {', '.join(lost)} and is not decorated, so "
                f"{cls.__name__} would not have these fields: write @settings above {base.__name__} (or ClassVar[...] "
                "for what is not a field)"
            )
    made = attrs.define(cls, frozen=True, kw_only=True, slots=True)
    made.__init__ = _reporting_unknown_fields(made.__init__)
    return made


def _reporting_unknown_fields(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that an unknown field raises an InvalidValue that lists the known fields."""

    @wraps(init)
    def checked_init(self: Any, *args: Any, **fields: Any) -> None:
        try:
            init(self, *args, **fields)
        except TypeError:
            known = [field.alias for field in attrs.fields(type(self)) if field.init]
            problems = [Problem(name, unknown_field(name, known)) for name in fields if name not in known]
            if not problems:
                raise
            raise InvalidValue(type(self).__name__, problems) from None

    return checked_init


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field,))
def settings(cls: C) -> C:
    """Make ``cls`` a frozen, keyword-only attrs class: a value without a name in a registry, or a base class.

    Raises:
        TypeError: a base class that is not decorated declares fields.

    >>> @settings
    ... class Crop(Checked):
    ...     size: int = 224
    >>> Crop(size=32)
    Crop(size=32)
    >>> Crop(siz=32)
    Traceback (most recent call last):
        ...
    aimcore.contracts.errors.InvalidValue: Crop: siz: unknown field (did you mean 'size'?); there are size
    """
    return _define(cls)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attrs.field,))
def component(name: str, *, paper: str = "") -> Callable[[C], C]:
    """Make a role's subclass a component called ``name``.

    Args:
        name: its name in recipes and ``aimcore describe``; lower case, unique within its role.
        paper: its source, e.g. ``"arXiv:2401.08541, Table 3b"``.

    Raises:
        TypeError: the class has no role; or it has a field called ``name``, the key of the component's name in recipes;
            or a base class that is not decorated declares fields.
    """

    def decorate(cls: C) -> C:
        if not issubclass(cls, Component) or not getattr(cls, "role", ""):
            raise TypeError(f"{cls.__name__} must subclass one of aimcore's roles (Ordering, Target, Head, ...)")
        made = _define(cls)
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(made)  # type: ignore[arg-type]  # _define makes it so
        if any(field.name == "name" for field in fields):
            raise TypeError(f"{cls.__name__} has a field called 'name', which recipes reserve: give it another name")
        made.name = name
        made.paper = paper
        return made

    return decorate


def at_least(path: str, value: float, minimum: float, most: float = math.inf) -> Iterable[Problem]:
    """Yield a problem if ``value`` is NaN, below ``minimum`` or above ``most``.

    >>> [problem.message for problem in at_least("depth", 0, 1)]
    ['must be at least 1, got 0']
    """
    if not value >= minimum:
        yield Problem(path, f"must be at least {minimum}, got {shown(value)}")
    elif value > most:
        yield Problem(path, f"must be at most {most}, got {shown(value)}")


def positive(path: str, value: float, most: float = math.inf) -> Iterable[Problem]:
    """Yield a problem if ``value`` is NaN, not above 0 or above ``most``."""
    if not value > 0:
        yield Problem(path, f"must be positive, got {shown(value)}")
    elif value > most:
        yield Problem(path, f"must be at most {most}, got {shown(value)}")


def within(path: str, value: float, low: float, high: float) -> Iterable[Problem]:
    """Yield a problem if ``value`` is NaN or outside of ``[low, high]``."""
    if not low <= value <= high:
        yield Problem(path, f"must lie between {low} and {high}, got {shown(value)}")
