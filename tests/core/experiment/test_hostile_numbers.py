"""Every number of every component and of every part of an experiment: accepted and costed, or refused with its path."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aimcore import (
    Augmentation,
    Branch,
    Component,
    Data,
    Experiment,
    InvalidValue,
    NativeResolution,
    Study,
    run_experiment,
)
from aimcore.contracts.field_types import field_types, is_mapping, is_sequence, item_types, members
from aimcore.engine.cost import cost_of
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed
from aimcore.running.preflight import check_study
from aimcore.testing.cases import installed_cases
from aimcore_sources import BundledEmoji
from aimcore_trunks import ViT

HOSTILE = (0, -1, 2**31, 2**63, 2**64 - 1, 10**30, 10**400, 1e308, math.nan, math.inf, -0.0, True, "3")
COSTED = ("trunk", "objective", "engine", "num_steps", "batch_size", "image_size", "native")
"""The parts of a path to what changes a run's cost."""
MOST_OPERATIONS = 20_000
MOST_BYTES = 2**29


class Place(NamedTuple):
    """A field that holds a number, or numbers."""

    path: tuple[str | int, ...]
    owner: Any
    """The component or settings whose field it is."""
    put: Callable[[Any, Any], Any]
    """From what is there, and a hostile value, to what the recipe gets."""
    is_whole: bool

    @property
    def is_costed(self) -> bool:
        return self.is_whole and self.path[-1] != "seed" and bool(set(COSTED) & set(self.path))


class Budget(TorchDispatchMode):
    """Ends what does too much: a count of work, as a time would depend on the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        assert self.operations <= MOST_OPERATIONS, "counting costs takes too many operations"
        result = func(*args, **(kwargs or {}))
        for tensor in [result] if isinstance(result, torch.Tensor) else []:
            assert tensor.is_meta or tensor.nbytes <= MOST_BYTES, f"{func} makes a tensor of {tensor.nbytes} bytes"
        return result


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    """Every number that ``value`` holds or could hold."""
    for name, kind in field_types(type(value), unresolved=Any).items():
        here, given = (*path, name), getattr(value, name)
        for member in members(kind):
            if member in (int, float):
                yield Place(here, value, lambda _, number: number, member is int)
            elif is_sequence(member) and {int, float} & set(item_types(member, 1)):
                put: Callable[[Any, Any], Any] = lambda there, number: [number, *(there or (1,))[1:]]  # noqa: E731
                yield Place(here, value, put, True)
            elif is_mapping(member):
                yield Place(here, value, lambda _, number: {"any": number}, False)
        for index, part in enumerate(given if isinstance(given, tuple) else ()):
            if attrs.has(type(part)):
                yield from places(part, (*here, index))
        if attrs.has(type(given)):
            yield from places(given, here)


def kinds_in(value: Any) -> set[type]:
    """The classes of a component or settings, and of all that its fields hold."""
    found = {type(value)}
    for field in attrs.fields(type(value)):
        given = getattr(value, field.name)
        for part in given if isinstance(given, tuple) else (given,):
            found |= kinds_in(part) if attrs.has(type(part)) else set()
    return found


def examples(role: str) -> tuple[Component, ...]:
    """One instance of each registered component that has any."""
    found = (tuple(cls.examples()) for _, cls in installed().registries[role].items())
    return tuple(some[0] for some in found if some)


def experiments() -> Iterator[Experiment]:
    """Experiments that together hold every registered component and every settings class."""
    source = BundledEmoji()
    augmentation = Augmentation(color_jitter=(0.4, 0.4, 0.2, 0.1))
    data = Data(train=source, validation=source, batch_size=8, image_size=16, augmentation=augmentation)
    seen: set[type] = set()
    for case in installed_cases():
        kinds = kinds_in(case.trunk) | kinds_in(case.objective)
        if kinds <= seen:
            continue  # an experiment checks its parts, which takes time for encoders of other libraries
        seen |= kinds
        side = math.lcm(data.image_size, case.trunk.patch_size)
        fitting = attrs.evolve(data, image_size=side)
        yield Experiment(name="plain", data=fitting, trunk=case.trunk, objective=case.objective, num_steps=4)
    base = Experiment(
        name="rich",
        data=data,
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=4),
        objective=case.objective,
        num_steps=4,
        probes=examples("probes"),
        evaluations=examples("evaluations"),
        trackers=examples("trackers"),
        branch=Branch(experiment="other", step=2),
    )
    yield base
    for each in examples("sources"):
        yield attrs.evolve(base, data=attrs.evolve(data, train=each))
    native = NativeResolution(patches_per_step=64, images_multiple_of=2, log2_area=(2.0, 3.0))
    yield attrs.evolve(base, branch=None, data=attrs.evolve(data, native=native))


def every_place() -> dict[str, tuple[Experiment, Place]]:
    """Each field of each class once, in the first experiment that it occurs in."""
    found: dict[str, tuple[Experiment, Place]] = {}
    for experiment in experiments():
        for place in places(experiment):
            found.setdefault(f"{type(place.owner).__name__}.{place.path[-1]}", (experiment, place))
    return found


def read(experiment: Experiment, place: Place, number: Any) -> Any:
    """The experiment with ``number`` there, from its recipe; the owner of the field where costs do not depend on it."""
    value, path = (experiment, place.path) if place.is_costed else (place.owner, place.path[-1:])
    recipe = json.loads(json.dumps(plain(value)))
    holder = recipe
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = place.put(holder[path[-1]], number)
    return structured(recipe, type(value), installed(), {})


PLACES = every_place()


def problems_of(experiment: Experiment, place: Place, number: Any) -> tuple[tuple[str, str], ...]:
    """What a dry run refuses; whatever else it raises comes through."""
    try:
        made = read(experiment, place, number)
        if place.is_costed:
            with Budget():
                check_study(Study(name="one", experiments=[made]), with_data=False)
                cost_of(made)
    except InvalidValue as error:
        return error.problems
    return ()


@pytest.mark.parametrize("field", PLACES)
def test_a_hostile_number_is_costed_or_refused_with_its_path(field: str) -> None:
    for number in HOSTILE:
        problems = problems_of(*PLACES[field], number)
        assert all(path for path, _ in problems), (number, problems)


def test_every_registered_component_with_numbers_is_among_them() -> None:
    every = [cls for registry in installed().registries.values() for _, cls in registry.items()]
    numeric = {cls.__name__ for cls in every for example in cls.examples()[:1] if list(places(example))}
    assert numeric <= {field.split(".")[0] for field in PLACES}


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("Engine.num_threads", 1_000_000),
        ("Engine.accumulation_steps", 10**9),
        ("Experiment.num_steps", 10**30),
        ("Experiment.probe_image_sizes", 10**9),
        ("Experiment.probe_native_area", 10**9),
        ("Experiment.seed", 2**64),
        ("Data.batch_size", 10**12),
        ("Data.image_size", 10**9),
        ("Data.num_workers", 10**6),
        ("Data.std", 1e-308),
        ("Data.caption_weights", 1e308),
        ("Data.image_size", 16384),
        ("Augmentation.color_jitter", -0.1),
        ("Augmentation.crop_ratio", 1e-9),
        ("AdamW.eps", -1),
        ("AdamW.eps", 0),
        ("AdamW.peak_lr", 1e308),
        ("AdamW.weight_decay", math.inf),
        ("Schedule.decay_steps", 2**62),
        ("ViT.width", 2**31),
        ("ViT.depth", 10**5),
        ("ViT.norm_eps", -1e-6),
        ("ViT.grid", -1),
        ("Multimodal.context_length", 10**6),
        ("MLPHead.ffn_ratio", 10**6),
        ("TextTower.ffn_width", -1),
        ("LinearProbe.epochs", 10**12),
        ("NativeResolution.log2_area", 17.0),
        ("NativeResolution.patches_per_step", 2**62),
    ],
)
def test_what_cannot_be_meant_is_refused(field: str, number: float) -> None:
    name = "eval_crop" if number == 16384 else field.split(".")[1]
    assert any(name in path for path, _ in problems_of(*PLACES[field], number))


@pytest.mark.parametrize("score", [56.1, -0.1, math.nan])
def test_the_papers_scores_are_fractions_before_anything_runs(score: float, tmp_path: Path) -> None:
    experiment, _ = PLACES["ViT.width"]
    with pytest.raises(InvalidValue, match=r"paper\.plain\.linear: must "):
        Study(name="one", experiments=[experiment], paper={"plain": {"linear": score}})
    with pytest.raises(InvalidValue, match=r"paper\.plain\.linear: must "):
        run_experiment(experiment, tmp_path, paper={"linear": score})
    assert list(tmp_path.iterdir()) == []


def test_more_parameters_than_any_machine_holds_are_refused_before_they_are_counted() -> None:
    experiment, _ = PLACES["ViT.width"]
    huge = attrs.evolve(experiment, trunk=ViT(width=2**16, depth=64, num_heads=16, patch_size=4))
    with pytest.raises(InvalidValue, match=r"trunk: .* at most 1e\+12 parameters, and these have 3\.3e\+12 and"):
        cost_of(huge)
    with pytest.raises(InvalidValue, match=r"plain\.trunk: "):
        check_study(Study(name="one", experiments=[huge]), with_data=False)
