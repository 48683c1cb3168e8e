"""Registries: the components of one role by name, with the supplier of each."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import attrs

from aimcore.contracts.component import Component
from aimcore.contracts.errors import NameClash, NotAComponent, UnknownComponent
from aimcore.contracts.messages import did_you_mean, shown

C = TypeVar("C", bound=Component)


class Supplier(NamedTuple):
    """The plugin that supplies a component."""

    distribution: str
    """The name of the distribution."""
    version: str
    plugin: str
    """The name of its entry point."""

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version}"


class NotLoaded(NamedTuple):
    """An installed plugin that cannot be used."""

    supplier: Supplier
    why: str
    """A sentence that names it, and says what to do."""

    def resembles(self, name: str) -> bool:
        """Return whether ``name`` resembles the name of this plugin or of its distribution."""
        distribution = self.supplier.distribution
        return bool(did_you_mean(name, [self.supplier.plugin, distribution, distribution.rpartition("-")[2]]))


def relevant(not_loaded: Iterable[NotLoaded], name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return why plugins that may supply ``name`` are not loaded; all reasons if no known name resembles it."""
    is_near = bool(did_you_mean(name, known))
    return tuple(plugin.why for plugin in not_loaded if not is_near or plugin.resembles(name))


class Registry(Generic[C]):
    """The components of one role. It is filled once while plugins load, then frozen."""

    def __init__(self, role: type[C]) -> None:
        self.role = role
        self._components: dict[str, type[C]] = {}
        self._suppliers: dict[str, Supplier] = {}
        self._frozen = False
        self._not_loaded: tuple[NotLoaded, ...] = ()

    @property
    def name(self) -> str:
        """The role's name, in the plural: ``"orderings"``."""
        return self.role.role

    def add(self, component: type[C], supplier: Supplier) -> None:
        """Register ``component`` under its name.

        Raises:
            NotAComponent: ``component`` is not a component class of this role.
            NameClash: another component has this name.
            RuntimeError: the registry is frozen.
        """
        if self._frozen:
            raise RuntimeError(f"the registry of {self.name} is frozen; components come from plugins only")
        fault = _fault(component, self.role)
        if fault:
            raise NotAComponent(f"{supplier} supplies {component!r} for {self.name}, but {fault}")
        first = self._suppliers.get(component.name)
        if first is not None:
            raise NameClash(
                f"two suppliers of {self.name}/{component.name}: {first}, and {supplier}. "
                f"Uninstall one, or leave one out with AIMCORE_BLOCK=NAME (of its plugin or distribution)"
            )
        self._components[component.name] = component
        self._suppliers[component.name] = supplier

    def freeze(self, not_loaded: Iterable[NotLoaded] = ()) -> None:
        """Allow no more changes. ``not_loaded`` are plugins that error messages mention if a component is unknown."""
        self._not_loaded = tuple(not_loaded)
        self._frozen = True

    def get(self, name: str, path: str = "") -> type[C]:
        """Return the component called ``name``. ``path`` is the place in a recipe that names it.

        Raises:
            UnknownComponent: the name is unknown; the message lists the known ones with their plugins.
        """
        try:
            return self._components[name]
        except KeyError:
            raise UnknownComponent(self.name, name, self._unknown(name, path)) from None

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        return tuple(sorted(self._components))

    def items(self) -> tuple[tuple[str, type[C]], ...]:
        """Return all components with their names, sorted by name."""
        return tuple(sorted(self._components.items()))

    def supplier_of(self, name: str) -> Supplier:
        """Return the supplier of the component called ``name``.

        Raises:
            UnknownComponent: the name is unknown.
        """
        self.get(name)
        return self._suppliers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def __len__(self) -> int:
        return len(self._components)

    def _unknown(self, name: str, path: str) -> str:
        where = f" (at {path})" if path else ""
        said = [f"no {self.name.removesuffix('s')} is called {shown(name)}{where}{did_you_mean(name, self.names())}"]
        if self._components:
            said.append("there are " + ", ".join(f"{known} ({self._suppliers[known][0]})" for known in self.names()))
        else:
            said.append(f"no installed plugin supplies {self.name}; for aimcore's own, run pip install -e .")
        absent = relevant(self._not_loaded, name, self.names())
        if absent:
            said.append("not loaded: " + ", ".join(absent))
        return "; ".join(said)


def _fault(component: object, role: type[Component]) -> str:
    """Return why ``component`` cannot be registered under ``role``, or an empty text."""
    if isinstance(component, role):
        return f"it is an instance: give the class, {type(component).__name__}, without parentheses"
    if not isinstance(component, type) or not issubclass(component, role):
        return f"it is not a subclass of {role.__name__}"
    if "name" not in vars(component) or not attrs.has(component):
        return "it is not decorated with @component(name)"
    if inspect.isabstract(component):
        return f"it lacks {', '.join(sorted(component.__abstractmethods__))}"
    return ""
