import json

import fsspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_plugins import Shape, ToyHead, ToyObjective, ToyTracker, toy_experiment, toy_plugins

from aimcore import Optimizer
from aimcore.errors import RecipeError
from aimcore.recipe import dumps, load, loads, save

TOYS = toy_plugins()
TRICKY = [
    "1e-3",
    "1e3",
    "no",
    "yes",
    "null",
    "~",
    "",
    "2024-01-01",
    "1_000",
    "0x10",
    "010",
    "1:30",
    ".inf",
    "<<",
    "=",
    "- a",
]


def with_label(label: str):
    return toy_experiment(objective=ToyObjective(head=ToyHead(shape=Shape(label=label), labels=(label,))))


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
def test_an_experiment_comes_back_equal_from_a_file(tmp_path, ending):
    path = tmp_path / f"recipe.{ending}"
    save(path, toy_experiment(), TOYS)
    assert load(path, TOYS) == toy_experiment()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize("label", TRICKY)
def test_text_that_looks_like_something_else_stays_text(tmp_path, ending, label):
    path = tmp_path / f"recipe.{ending}"
    save(path, with_label(label), TOYS)
    assert load(path, TOYS) == with_label(label)


@settings(deadline=None, max_examples=60)
@given(label=st.text(), rate=st.floats(min_value=0, max_value=1000, exclude_min=True))
def test_any_text_and_any_number_come_back_equal_from_yaml(tmp_path_factory, label, rate):
    path = tmp_path_factory.mktemp("yaml") / "recipe.yaml"
    experiment = with_label(label)
    experiment = toy_experiment(objective=experiment.objective, optimizer=Optimizer(peak_lr=rate))
    save(path, experiment, TOYS)
    assert load(path, TOYS) == experiment


@pytest.mark.parametrize("label", TRICKY)
def test_other_yaml_readers_see_the_same_text(tmp_path, label):
    save(tmp_path / "recipe.yaml", with_label(label), TOYS)
    read = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert read["experiment"]["objective"]["head"]["labels"] == [label]


@pytest.mark.parametrize(
    ("written", "rate"), [("1e-3", 0.001), ("1E-3", 0.001), (".5", 0.5), ("5.", 5.0), ("+2e2", 200.0), ("3", 3.0)]
)
def test_yaml_numbers_are_numbers(tmp_path, written, rate):
    assert load(yaml_with(tmp_path, f"peak_lr: {written}"), TOYS).optimizer.peak_lr == rate


@pytest.mark.parametrize("written", ['"1e-3"', "'0.1'", "1_000.0", "1:30.5", "yes", ".nan"])
def test_what_is_quoted_or_no_number_in_yaml_stays_text(tmp_path, written):
    with pytest.raises(RecipeError, match=r"optimizer\.peak_lr: must be a number, got '"):
        load(yaml_with(tmp_path, f"peak_lr: {written}"), TOYS)


def yaml_with(folder, line: str):
    """The toys' recipe in YAML, with a line in its optimizer instead of the rate."""
    path = folder / "recipe.yaml"
    save(path, toy_experiment(optimizer=Optimizer(peak_lr=123.5)), TOYS)
    path.write_text(path.read_text().replace("peak_lr: 123.5", line))
    return path


def test_a_key_that_stands_twice_in_yaml_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="the key 'eps' stands twice"):
        load(yaml_with(tmp_path, "eps: 1.0"), TOYS)


def test_a_key_that_stands_twice_in_json_is_an_error():
    text = dumps(toy_experiment(), TOYS).replace('"peak_lr"', '"eps"')
    with pytest.raises(RecipeError, match="the key 'eps' stands twice"):
        loads(text, TOYS)


def test_yaml_makes_no_python_objects(tmp_path):
    with pytest.raises(RecipeError, match="is not YAML: could not determine a constructor"):
        load(yaml_with(tmp_path, "peak_lr: !!python/object/apply:os.getpid []"), TOYS)


@pytest.mark.parametrize(("name", "kind"), [("r.json", "JSON"), ("r.yaml", "YAML")])
def test_text_that_cannot_be_read_says_where(tmp_path, name, kind):
    (tmp_path / name).write_text('{"a": [1,\n')
    with pytest.raises(RecipeError, match=rf"(?s)is not {kind}: .*line 2"):
        load(tmp_path / name, TOYS)


def test_numbers_that_are_not_finite_are_refused_in_json():
    text = dumps(toy_experiment(optimizer=Optimizer(peak_lr=123.5)), TOYS).replace("123.5", "Infinity")
    with pytest.raises(RecipeError, match=r"optimizer\.peak_lr: must be finite, got inf"):
        loads(text, TOYS)


def test_an_unknown_ending_is_answered_with_the_known(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe\.toml must end in one of \.json, \.yaml, \.yml"):
        save(tmp_path / "recipe.toml", toy_experiment(), TOYS)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no file .*recipe\.json"):
        load(tmp_path / "recipe.json", TOYS)


def test_a_recipe_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "recipe.json"
    save(path, toy_experiment(), TOYS)
    with pytest.raises(RecipeError, match="must be a finite number"):
        save(path, toy_experiment(trackers=(ToyTracker(notes=float("inf")),)), TOYS)
    assert load(path, TOYS) == toy_experiment()


def test_a_recipe_may_lie_at_a_url():
    save("memory://runs/recipe.yaml", toy_experiment(), TOYS)
    assert load("memory://runs/recipe.yaml", TOYS) == toy_experiment()
    fsspec.filesystem("memory").rm("runs", recursive=True)


def test_json_is_written_for_people():
    text = dumps(toy_experiment(name="toys"), TOYS)
    assert text.startswith('{\n  "schema_version": 1,\n')
    assert json.loads(text)["experiment"]["name"] == "toys"
