import copy
import sys
from types import ModuleType

import pytest
from toy_plugins import ToyDistribution, ToyHead, points_of, toy_experiment, toy_plugins

from aimcore import component, hookimpl
from aimcore.contracts.errors import RecipeError
from aimcore.recipe import apply_changes, from_recipe, to_recipe
from aimcore.registry.plugins import load_plugins

TOYS = toy_plugins()


@component("tall")
class TallHead(ToyHead):
    """Inherits a field whose annotation is text that only its base's module can read."""

    height: int = 2


def with_value(path: str, value) -> dict:
    """The toys' recipe with any value at a path of the whole document."""
    recipe = copy.deepcopy(to_recipe(toy_experiment(), TOYS))
    *steps, last = path.split(".")
    node = recipe
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[last] = value
    return recipe


def problems_of(recipe) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        from_recipe(recipe, TOYS)
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("objective.head.bias", "false", "must be true or false, got 'false'"),
        ("objective.head.bias", 0, "must be true or false, got 0"),
        ("num_steps", 3.9, "must be a whole number, got 3.9"),
        ("num_steps", 3.0, "must be a whole number, got 3.0: write 3"),
        ("num_steps", True, "must be a whole number, got true"),
        ("num_steps", "3", "must be a whole number, got '3'"),
        ("num_steps", None, "must be a whole number, got null"),
        ("optimizer.peak_lr", "1e-3", "must be a number, got '1e-3'"),
        ("optimizer.peak_lr", True, "must be a number, got true"),
        ("optimizer.peak_lr", float("nan"), "must be a number, got nan: it is not finite"),
        ("optimizer.peak_lr", 10**400, "must be a number, got a whole number of 1329 bits: it is not finite"),
        ("name", 7, "must be text, got 7"),
        ("checkpoint_every", "often", "must be a whole number or null, got 'often'"),
        ("engine.zero_stage", True, "must be 0 or 1 or 2 or 3, got true"),
        ("engine.precision", "fp16", 'must be "fp32" or "bf16" or "autocast", got \'fp16\''),
        ("objective.prefix", "uniforn", "must be \"uniform\" or a whole number or null, got 'uniforn'"),
        ("objective.prefix", 1.5, 'must be "uniform" or a whole number or null, got 1.5'),
        ("objective.prefix", True, 'must be "uniform" or a whole number or null, got true'),
        ("objective.head.labels", "ab", "must be a list, got 'ab': write ['ab']"),
        ("objective.head.shape.sides", [1, 2, 3], "must have 2 items, got 3: [1, 2, 3]"),
        ("objective.target.weights", ["a"], "must be a mapping, got ['a']"),
        ("optimizer", 3, "must be a component with its 'name'; there are toy; got 3"),
        ("objective.decoder", 3, "must be a component (Decoder) or null, got 3"),
    ],
)
def test_types_are_strict(path, value, message):
    assert problems_of(with_value(f"experiment.{path}", value)) == {path: message}


@pytest.mark.parametrize("value", ["auto", None, 0.5, 2])
def test_each_member_of_a_union_is_read(value):
    read = from_recipe(with_value("experiment.objective.head.scale", value), TOYS)
    assert read.objective.head.scale == value


def test_a_whole_number_stays_one_where_both_kinds_are_allowed():
    read = from_recipe(with_value("experiment.objective.head.amount", 3), TOYS)
    assert type(read.objective.head.amount) is int


def test_inherited_annotations_are_read_where_they_were_written(monkeypatch):
    module = ModuleType("tall_plugin")
    module.heads = hookimpl(lambda: [TallHead])
    monkeypatch.setitem(sys.modules, "tall_plugin", module)
    tall = ToyDistribution("aimcore-tall", "1.0", {"tall": "tall_plugin"})
    toys = ToyDistribution("aimcore-toys", "1.5", {"toys": "toy_plugins"})
    recipe = with_value("experiment.objective.head", {"name": "tall", "shape": {"sides": [3, 4]}})
    head = from_recipe(recipe, load_plugins(points_of(toys, tall))).objective.head
    assert (head.shape.sides, head.height) == ((3, 4), 2)


def test_items_of_lists_and_mappings_have_paths():
    recipe = with_value("experiment.objective.head.places", [[1, 2.0], [1, "x"], [0.5, 1]])
    recipe["experiment"]["objective"]["target"]["weights"] = {"a": 1, "b": None}
    assert problems_of(recipe) == {
        "objective.head.places.1.1": "must be a number, got 'x'",
        "objective.head.places.2.0": "must be a whole number, got 0.5",
        "objective.target.weights.b": "must be a number, got null",
    }


def test_an_unknown_field_is_answered_with_the_nearest_and_all():
    assert problems_of(with_value("experiment.optimizer.peek_lr", 1)) == {
        "optimizer.peek_lr": (
            "unknown field (did you mean 'peak_lr'?); there are peak_lr, gradient_clipping, layer_decay, "
            "weight_decay, decay, betas, eps, momentum"
        )
    }


def test_an_unknown_field_of_a_component_is_an_error_too():
    problems = problems_of(with_value("experiment.objective.ordering.sede", 1))
    assert problems == {"objective.ordering.sede": "unknown field (did you mean 'seed'?); there are seed"}


def test_a_missing_field_is_required():
    recipe = with_value("experiment.seed", 1)
    del recipe["experiment"]["data"]["batch_size"]
    assert problems_of(recipe) == {"data.batch_size": "is required"}


def test_a_components_own_problems_keep_their_paths():
    recipe = apply_changes(
        to_recipe(toy_experiment(), TOYS), ["objective.head.width=0", "objective.head.ratio=-1"], TOYS
    )
    assert problems_of(recipe) == {
        "objective.head.width": "must be at least 1, got 0",
        "objective.head.ratio": "must be at least 0, got -1",
    }


def test_everything_wrong_is_reported_at_once():
    changes = ["seed=x", "optimizer.peak_lr=-1", "objective.head.width=0", "trunk=vitt", "probes=[3]"]
    recipe = apply_changes(to_recipe(toy_experiment(), TOYS), changes, TOYS)
    recipe["experiment"]["nmae"] = "x"
    assert set(problems_of(recipe)) == {
        "seed", "optimizer.peak_lr", "objective.head.width", "trunk", "probes.0", "nmae",
    }  # fmt: skip


def test_what_does_not_fit_together_is_reported_where_the_experiment_says():
    recipe = apply_changes(to_recipe(toy_experiment(), TOYS), ["schedule.warmup_steps=10"], TOYS)
    assert problems_of(recipe) == {"schedule.warmup_steps": "must be below num_steps (10)"}


def test_an_unknown_component_has_its_path_and_the_names_there_are():
    assert problems_of(with_value("experiment.objective.ordering.name", "toi")) == {
        "objective.ordering": "no ordering is called 'toi' (did you mean 'toy'?); there are toy (aimcore-toys)"
    }


@pytest.mark.parametrize("value", [3, None, {"seed": 1}, {"name": 3}, []])
def test_a_component_needs_a_name(value):
    problems = problems_of(with_value("experiment.objective.ordering", value))
    assert problems["objective.ordering"].startswith("must be a component with its 'name'; there are toy; got ")


def test_a_tokenizer_of_the_wrong_kind_is_an_error_at_its_path():
    assert problems_of(with_value("experiment.objective.text_tokenizer", {"name": "codes"})) == {
        "objective.text_tokenizer": "expected a TextTokenizer, got 'codes'; there are letters"
    }


def test_any_kind_of_tokenizer_fits_where_any_is_meant():
    read = from_recipe(with_value("experiment.objective.any_tokenizer", {"name": "letters"}), TOYS)
    assert read.objective.any_tokenizer.name == "letters"


def test_a_component_of_a_plugin_that_is_not_installed_comes_with_the_command():
    recipe = with_value("experiment.objective.ordering.name", "hilbert")
    recipe["plugins"]["aimcore-hilbert"] = {"version": "0.3", "components": ["orderings/hilbert"]}
    assert problems_of(recipe)["objective.ordering"].startswith(
        "no ordering is called 'hilbert'; the recipe has it from aimcore-hilbert 0.3, which is not installed: "
        "run pip install aimcore-hilbert; there are "
    )


def test_a_component_that_another_version_supplied_comes_with_both_versions():
    recipe = with_value("experiment.objective.ordering.name", "hilbert")
    recipe["plugins"]["aimcore-toys"] = {"version": "1.2", "components": ["orderings/hilbert"]}
    assert "has it from aimcore-toys 1.2; installed is 1.5; there are " in problems_of(recipe)["objective.ordering"]


def test_a_component_of_a_blocked_plugin_says_so():
    other = ToyDistribution("aimcore-hilbert", "0.3", {"hilbert": "no_such_module"})
    toys = ToyDistribution("aimcore-toys", "1.5", {"toys": "toy_plugins"})
    plugins = load_plugins(points_of(toys, other), ["hilbert"])
    recipe = with_value("experiment.objective.ordering.name", "hilbert")
    with pytest.raises(RecipeError, match=r"aimcore-hilbert 0\.3 is blocked by AIMCORE_BLOCK"):
        from_recipe(recipe, plugins)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "must be 1, got 2; a newer aimcore may read it"),
        ("schema_version", True, "must be 1, got True; a newer aimcore may read it"),
        (
            "plugin",
            {},
            "unknown field (did you mean 'plugins'?); there are schema_version, aimcore, plugins, experiment",
        ),
        ("aimcore", 0.1, "must be a version in quotes, got 0.1"),
        ("plugins", [], "must map distributions to what they supply, got []"),
    ],
)
def test_the_document_is_checked_before_its_experiment(path, value, message):
    assert problems_of(with_value(path, value)) == {path: message}


def test_a_plugins_entry_needs_a_version():
    assert list(problems_of(with_value("plugins.aimcore-toys", {}))) == ["plugins.aimcore-toys"]


def test_an_empty_document_lacks_all():
    assert set(problems_of({})) == {"schema_version", "experiment"}


def test_what_is_no_mapping_is_no_recipe():
    assert problems_of([1])[""].startswith("must be a mapping with schema_version")
