import pytest
from toy_plugins import (
    SecondToyProbe,
    ToyHead,
    ToyOrdering,
    ToyProbe,
    ToySource,
    WrappedTrunk,
    toy_experiment,
    toy_plugins,
)

from aimcore.contracts.errors import RecipeError
from aimcore.recipe import apply_changes, changed, from_recipe, to_recipe

TOYS = toy_plugins()
BARE = {
    "schema_version": 1,
    "experiment": {
        "name": "toys",
        "data": {"train": "toy", "validation": {"name": "toy", "root": "elsewhere"}, "batch_size": 8, "image_size": 32},
        "trunk": "toy",
        "objective": "toy",
        "optimizer": "toy",
        "num_steps": 10,
    },
}
"""A recipe by hand: whatever has a default is left out."""


def after(*changes: str):
    return changed(toy_experiment(probes=(ToyProbe(), SecondToyProbe())), changes, TOYS)


def problems_of(*changes: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        after(*changes)
    return dict(caught.value.problems)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1E-3"])
def test_numbers_are_read_as_json(text):
    assert after(f"optimizer.peak_lr={text}").optimizer.peak_lr == 0.001


def test_what_is_not_json_is_text():
    assert after("name=spiral-2").name == "spiral-2"


def test_json_text_in_quotes_is_text_too():
    assert after('name="123"').name == "123"


def test_text_may_hold_equals_signs():
    assert after("data.train.root=s3://x?a=b").data.train.root == "s3://x?a=b"


def test_null_and_lists_are_json():
    made = after("optimizer.gradient_clipping=null", "optimizer.betas=[0.8, 0.99]")
    assert made.optimizer.gradient_clipping is None
    assert made.optimizer.betas == (0.8, 0.99)


def test_a_number_in_a_list_of_a_list_has_a_path():
    made = after("data.augmentation.crop_scale.0=0.25", "objective.head.shape.sides.1=9")
    assert made.data.augmentation.crop_scale == (0.25, 1.0)
    assert made.objective.head.shape.sides == (1, 9)


def test_components_in_a_list_are_counted_from_zero():
    assert after("probes.1.epochs=7").probes == (ToyProbe(), SecondToyProbe(epochs=7))


def test_a_bare_name_is_a_component_with_its_defaults():
    made = after("objective.ordering.seed=4", "objective.ordering=toy")
    assert made.objective.ordering == ToyOrdering()


def test_a_bare_name_becomes_a_component_in_the_recipe():
    recipe = apply_changes(to_recipe(toy_experiment(), TOYS), ["trunk=wrapped"], TOYS)
    assert recipe["experiment"]["trunk"] == {"name": "wrapped"}


def test_changes_go_on_from_a_component_just_set():
    made = after("trunk=wrapped", "trunk.trunk.patch_size=8", "data.probe_train=toy", "data.probe_train.root=there")
    assert made.trunk == WrappedTrunk(trunk=type(made.trunk.trunk)(patch_size=8))
    assert made.data.probe_train == ToySource(root="there")


def test_bare_names_in_a_list_are_components():
    assert after('objective.heads=["toy", {"name": "toy", "width": 3}]').objective.heads == (
        ToyHead(),
        ToyHead(width=3),
    )


def test_an_open_mapping_takes_any_key():
    assert after("objective.target.weights.pixels=2").objective.target.weights == {"pixels": 2.0}


def test_the_recipe_given_is_left_as_it_was():
    recipe = to_recipe(toy_experiment(), TOYS)
    apply_changes(recipe, ["data.train.root=x", "optimizer.betas.0=0.5"], TOYS)
    assert recipe == to_recipe(toy_experiment(), TOYS)


def test_fields_that_a_recipe_leaves_out_can_be_changed():
    changes = ["optimizer.peak_lr=0.5", "objective.head.shape.label=x", "data.augmentation.crop_ratio.1=2"]
    made = from_recipe(apply_changes(BARE, changes, TOYS), TOYS)
    assert (made.optimizer.peak_lr, made.objective.head.shape.label) == (0.5, "x")
    assert made.data.augmentation.crop_ratio == (0.75, 2.0)


def test_an_unknown_path_is_answered_with_the_fields_of_its_level():
    assert problems_of("optimizer.peek_lr=1") == {
        "optimizer.peek_lr": (
            "unknown field (did you mean 'peak_lr'?); there are name, peak_lr, gradient_clipping, layer_decay, "
            "weight_decay, decay, betas, eps, momentum"
        )
    }


def test_an_unknown_field_of_a_component_is_answered_with_that_components():
    assert problems_of("objective.ordering.sede=1") == {
        "objective.ordering.sede": "unknown field (did you mean 'seed'?); there are name, seed"
    }


def test_every_change_that_leads_nowhere_is_reported():
    assert set(problems_of("optimiser.eps=1", "probes.2.epochs=1", "seed.x=1", "seed")) == {
        "optimiser", "probes.2", "seed.x", "seed",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["2", "-1", "first"])
def test_a_place_outside_a_list_is_answered_with_the_places(place):
    assert problems_of(f"probes.{place}.epochs=1") == {f"probes.{place}": "index out of range; there are 0 to 1"}


def test_a_change_without_a_path_is_answered_with_the_form():
    assert problems_of("=3") == {"=3": "a change is written PATH=VALUE"}


def test_below_a_plain_value_there_is_nothing():
    assert problems_of("num_steps.x=1") == {
        "num_steps.x": "leads nowhere: num_steps is 10, which has no fields",
    }


def test_below_an_absent_component_there_is_nothing_until_it_is_named():
    assert problems_of("data.probe_test.root=x") == {
        "data.probe_test.root": "leads nowhere: data.probe_test is null, which has no fields",
    }


def test_a_change_below_an_unknown_component_lists_the_known():
    assert problems_of("trunk=vitt", "trunk.width=3")["trunk"].startswith("no trunk is called 'vitt'; there are toy")


def test_a_value_of_the_wrong_type_is_found_when_the_recipe_is_read():
    assert problems_of("num_steps=many") == {"num_steps": "must be a whole number, got 'many'"}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_json_are_no_numbers(text):
    assert problems_of(f"optimizer.peak_lr={text}") == {"optimizer.peak_lr": f"must be a number, got '{text}'"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "probes=[{name: knn}]",
            r"^--set: probes: '\[\{name: knn\}\]' is not JSON \(.*write names and texts in",
        ),
        ("probes.0={name: knn}", r"^--set: probes\.0: .* is not JSON"),
        ("num_steps=-1", r"^--set: num_steps: must be"),
    ],
)
def test_a_wrong_value_is_reported_as_one_of_set(change, message):
    with pytest.raises(RecipeError, match=message):
        changed(toy_experiment(), [change], TOYS)


def test_text_in_braces_that_is_no_object_is_text():
    assert apply_changes(to_recipe(toy_experiment(), TOYS), ["name={run}"], TOYS)["experiment"]["name"] == "{run}"
