import json
import warnings
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tokenizers import write_dvae, write_kmeans
from toy_plugins import (
    SecondToyProbe,
    Shape,
    ToyDecoder,
    ToyDistribution,
    ToyHead,
    ToyImageTokenizer,
    ToyObjective,
    ToyOptimizer,
    ToyOrdering,
    ToyProbe,
    ToyTarget,
    ToyTracker,
    ToyTrunk,
    WrappedTrunk,
    points_of,
    toy_experiment,
    toy_plugins,
)

from aimcore import SCALES, Component, Experiment, FileLayout, Ordering, component
from aimcore.contracts.errors import NewerVersion, RecipeError
from aimcore.contracts.roles import ROLES
from aimcore.recipe import apply_changes, checked, dumps, from_recipe, loads, to_recipe
from aimcore.registry.plugins import installed, load_plugins
from aimcore.running.study_files import load_study
from aimcore_optimizers import AdamW

TOYS = toy_plugins()
EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
    if "\ndef study(" in path.read_text(encoding="utf-8")
]
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**64 - 1)


@st.composite
def toy_heads(draw):
    return ToyHead(
        width=draw(st.integers(1, 2**64 - 1)),
        ratio=draw(st.floats(0, allow_infinity=False)),
        bias=draw(st.booleans()),
        norm=draw(st.sampled_from(["layer", "rms"])),
        shape=Shape(sides=draw(st.tuples(WHOLE, WHOLE)), label=draw(st.none() | st.text())),
        places=draw(st.lists(st.tuples(WHOLE, NUMBERS), max_size=3).map(tuple)),
        labels=draw(st.lists(st.text(), max_size=3).map(tuple)),
        scale=draw(st.none() | st.just("auto") | NUMBERS),
        amount=draw(WHOLE | NUMBERS),
    )


@st.composite
def toy_experiments(draw):
    objective = ToyObjective(
        ordering=ToyOrdering(seed=draw(WHOLE)),
        target=ToyTarget(
            weights=draw(st.dictionaries(st.text(), NUMBERS, max_size=3)),
            names=draw(st.frozensets(st.text(), max_size=3)),
        ),
        head=draw(toy_heads()),
        decoder=draw(st.none() | st.builds(ToyDecoder)),
        image_tokenizer=draw(st.none() | st.builds(ToyImageTokenizer)),
        heads=draw(st.lists(toy_heads(), max_size=2).map(tuple)),
        prefix=draw(st.none() | st.just("uniform") | WHOLE),
    )
    trunk = draw(st.sampled_from([ToyTrunk(), WrappedTrunk(), WrappedTrunk(trunk=WrappedTrunk())]))
    return toy_experiment(
        objective=objective,
        trunk=trunk,
        probes=(ToyProbe(), SecondToyProbe())[: draw(st.integers(0, 2))],
        seed=draw(st.integers(0, 2**64 - 1)),
    )


@settings(deadline=None, max_examples=60)
@given(toy_experiments())
def test_an_experiment_of_toys_comes_back_equal_through_json(experiment):
    assert loads(dumps(experiment, TOYS), TOYS) == experiment


@settings(deadline=None, max_examples=30)
@given(toy_experiments())
def test_a_recipe_comes_back_the_same_text(experiment):
    text = dumps(experiment, TOYS)
    assert dumps(loads(text, TOYS), TOYS) == text


def with_component(experiment: Experiment, part: Component) -> Experiment:
    """``experiment`` with one toy exchanged for a component, of whatever role."""
    evolve = attrs.evolve
    match part.role:
        case "sources":
            return evolve(experiment, data=evolve(experiment.data, train=part))
        case "trunks":
            size = 8 * part.patch_size
            return evolve(experiment, trunk=part, data=evolve(experiment.data, image_size=size))
        case "objectives":
            trunks = (example for _, cls in installed().registries["trunks"].items() for example in cls.examples())
            trunk = next(trunk for trunk in trunks if part.requires <= trunk.capabilities)
            size = 8 * trunk.patch_size
            return evolve(experiment, objective=part, trunk=trunk, data=evolve(experiment.data, image_size=size))
        case "probes" | "trackers" | "evaluations":
            return evolve(experiment, **{part.role: (part,)})
        case "optimizers":
            return evolve(experiment, optimizer=part)
        case "tokenizers":
            return evolve(experiment, objective=evolve(experiment.objective, any_tokenizer=part))
        case role:
            return evolve(experiment, objective=evolve(experiment.objective, **{role.removesuffix("s"): part}))


def instances(cls: type[Component]) -> Sequence[Component]:
    """The component's examples; for one that cannot have any (a source of a user's files), some text per field."""
    required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
    has_own = cls.examples.__func__ is not Component.examples.__func__
    return cls.examples() if has_own or not required else (cls(**dict.fromkeys(required, "somewhere")),)


EVERYTHING = load_plugins(
    [*entry_points(group="aimcore"), *points_of(ToyDistribution("aimcore-toys", "1.5", {"toys": "toy_plugins"}))]
)
INSTALLED = [
    pytest.param(part, id=f"{role.role}/{name}-{number}")
    for role in ROLES
    if role is not FileLayout  # a layout reads files, and is no part of an experiment
    for name, cls in EVERYTHING.registry(role).items()
    for number, part in enumerate(instances(cls))
]


@pytest.mark.parametrize("part", INSTALLED)
def test_every_component_comes_back_equal_with_every_field_written(part):
    experiment = with_component(toy_experiment(), part)
    text = dumps(experiment, EVERYTHING)
    assert loads(text, EVERYTHING) == experiment
    fields = {field.name for field in attrs.fields(type(part)) if field.init}
    assert any(set(node) == {"name", *fields} for node in mappings(json.loads(text)) if node.get("name") == part.name)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Files where examples look for those of the user, by environment variable."""
    folder = tmp_path_factory.mktemp("tokenizers")
    write_kmeans(folder / "kmeans.safetensors", patch_size=14)
    write_dvae(folder / "dvae.safetensors")
    return {f"{name.upper()}_TOKENIZER": str(folder / f"{name}.safetensors") for name in ("kmeans", "dvae")}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_comes_back_equal_at_every_scale(path, scale, tokenizers, monkeypatch):
    for variable, file in tokenizers.items():
        monkeypatch.setenv(variable, file)
    experiments = load_study(path, scale).experiments
    assert tuple(loads(dumps(experiment)) for experiment in experiments) == experiments
    assert tuple(checked(experiment) for experiment in experiments) == experiments


def mappings(node):
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from mappings(child)


def test_a_recipe_says_what_wrote_it():
    recipe = to_recipe(toy_experiment(), TOYS)
    assert (recipe["schema_version"], recipe["aimcore"]) == (1, installed().version_of("aimcore"))
    assert recipe["plugins"] == {
        "aimcore-toys": {
            "version": "1.5",
            "components": [
                "heads/toy",
                "objectives/toy",
                "optimizers/toy",
                "orderings/toy",
                "sources/toy",
                "targets/toy",
                "tokenizers/codes",
                "tokenizers/letters",
                "trunks/toy",
            ],
        }
    }


def test_components_are_written_by_their_own_type_and_defaults_too():
    recipe = to_recipe(toy_experiment(trackers=(ToyTracker(project="p"),)), TOYS)["experiment"]
    assert recipe["objective"]["ordering"] == {"name": "toy", "seed": 0}
    assert recipe["trackers"] == [{"name": "toy", "project": "p", "notes": None}]


def test_fields_may_be_left_out_and_a_bare_name_means_its_defaults():
    recipe = {
        "schema_version": 1,
        "experiment": {
            "name": "toys",
            "data": {"train": "toy", "validation": {"name": "toy", "root": "elsewhere"}, "batch_size": 8}
            | {"image_size": 32},
            "trunk": "toy",
            "objective": {"name": "toy", "ordering": "toy"},
            "num_steps": 10,
        },
    }
    assert from_recipe(recipe, TOYS) == toy_experiment(optimizer=AdamW())


def test_an_optimizer_without_a_name_is_that_of_recipes_of_0_1():
    recipe = to_recipe(toy_experiment(), TOYS)
    recipe["experiment"]["optimizer"] = {"peak_lr": 0.5}
    assert from_recipe(recipe, EVERYTHING).optimizer == AdamW(peak_lr=0.5)
    assert apply_changes(recipe, ["optimizer.eps=0.1"], EVERYTHING)["experiment"]["optimizer"] == {
        "name": "adamw", "peak_lr": 0.5, "eps": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (toy_experiment(trackers=(ToyTracker(notes=float("inf")),)), "trackers.0.notes"),
        (toy_experiment(trackers=(ToyTracker(notes=np.float32(1)),)), "trackers.0.notes"),
        (toy_experiment(trackers=(ToyTracker(notes=[1, object()]),)), "trackers.0.notes.1"),
        (toy_experiment(trackers=(ToyTracker(notes={1: 2.0}),)), "trackers.0.notes"),
    ],
)
def test_what_no_recipe_can_hold_is_an_error_at_its_path(value, path):
    with pytest.raises(RecipeError) as caught:
        to_recipe(value, TOYS)
    assert [problem[0] for problem in caught.value.problems] == [path]


def test_a_component_of_no_plugin_cannot_be_written():
    @component("peano")
    class Peano(Ordering):
        def permutation(self, grid): ...

    with pytest.raises(RecipeError, match=r"objective.ordering: .*Peano \(orderings/peano\) is not supplied by any"):
        to_recipe(toy_experiment(objective=ToyObjective(ordering=Peano())), TOYS)


def test_a_class_that_only_borrows_a_components_name_cannot_be_written():
    @component("toy")
    class Other(Ordering):
        def permutation(self, grid): ...

    with pytest.raises(RecipeError, match=r"Other \(orderings/toy\) is not supplied by any installed plugin"):
        to_recipe(toy_experiment(objective=ToyObjective(ordering=Other())), TOYS)


def test_a_checked_experiment_comes_back_equal():
    assert checked(toy_experiment(), TOYS) == toy_experiment()


def test_checking_finds_what_its_recipe_does_not_give_back_equal():
    said = r"^experiment: trackers\.0\.notes: is \(1, 2\), but its recipe gives \[1, 2\] back: write it so$"
    with pytest.raises(RecipeError, match=said):
        checked(toy_experiment(trackers=[ToyTracker(notes=(1, 2))]), TOYS)


def test_a_list_where_a_tuple_is_declared_comes_back_equal():
    experiment = toy_experiment(probes=[ToyProbe()])
    assert checked(experiment, TOYS).probes == experiment.probes == (ToyProbe(),)


def test_a_whole_number_where_any_number_is_meant_passes_the_check():
    assert checked(toy_experiment(optimizer=ToyOptimizer(peak_lr=1)), TOYS).optimizer.peak_lr == 1.0


def test_a_newer_plugin_is_a_warning():
    recipe = to_recipe(toy_experiment(), toy_plugins("1.10"))
    with pytest.warns(NewerVersion, match=r"written with aimcore-toys 1\.10; installed is 1\.5"):
        assert from_recipe(recipe, TOYS) == toy_experiment()


def test_a_newer_aimcore_is_a_warning():
    with pytest.warns(NewerVersion, match=r"written with aimcore 999\.0"):
        from_recipe(to_recipe(toy_experiment(), TOYS) | {"aimcore": "999.0"}, TOYS)


def test_an_older_plugin_is_no_warning():
    recipe = to_recipe(toy_experiment(), toy_plugins("1.4")) | {"aimcore": "0.0.1"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_recipe(recipe, TOYS) == toy_experiment()
