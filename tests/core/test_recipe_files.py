import json
import re
from itertools import pairwise
from unittest import mock

import fsspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_plugins import Shape, ToyHead, ToyObjective, ToyOptimizer, ToyTracker, toy_experiment, toy_plugins

from aimcore.contracts.errors import RecipeError
from aimcore.recipe import changed, dumps, from_recipe, load, loads, save, to_recipe

TOYS = toy_plugins()
MANY = dict.fromkeys(map(str, range(1000)), 1)
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
    experiment = toy_experiment(objective=experiment.objective, optimizer=ToyOptimizer(peak_lr=rate))
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
    save(path, toy_experiment(optimizer=ToyOptimizer(peak_lr=123.5)), TOYS)
    path.write_text(path.read_text().replace("peak_lr: 123.5", line))
    return path


def test_a_key_that_occurs_twice_in_yaml_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="the key 'eps' occurs twice"):
        load(yaml_with(tmp_path, "eps: 1.0"), TOYS)


def test_a_key_that_occurs_twice_in_json_is_an_error():
    text = dumps(toy_experiment(), TOYS).replace('"peak_lr"', '"eps"')
    with pytest.raises(RecipeError, match="the key 'eps' occurs twice"):
        loads(text, TOYS)


def test_yaml_makes_no_python_objects(tmp_path):
    with pytest.raises(RecipeError, match=r"line \d+, column \d+: tags \(!\) are not allowed in recipes"):
        load(yaml_with(tmp_path, "peak_lr: !!python/object/apply:os.getpid []"), TOYS)


@pytest.mark.parametrize(("name", "kind"), [("r.json", "JSON"), ("r.yaml", "YAML")])
def test_text_that_cannot_be_read_says_where(tmp_path, name, kind):
    (tmp_path / name).write_text('{"a": [1,\n')
    with pytest.raises(RecipeError, match=rf"(?s)is not {kind}: .*line 2"):
        load(tmp_path / name, TOYS)


def test_numbers_that_are_not_finite_are_refused_in_json():
    text = dumps(toy_experiment(optimizer=ToyOptimizer(peak_lr=123.5)), TOYS).replace("123.5", "Infinity")
    with pytest.raises(RecipeError, match=r"optimizer\.peak_lr: must be a number, got inf: it is not finite"):
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


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{other}'] * 10)}]\n" for other, one in pairwise("abcdefghij")
)
HOSTILE = {
    "an alias bomb": ("yaml", BOMB, r"r\.yaml: line 2, column 8: aliases \(\*\) are not allowed in recipes: write"),
    "an alias": ("yaml", "a: &a [1]\nb: *a\n", r"line 2, column 4: aliases"),
    "an alias in itself": ("yaml", "a: &a [*a]\n", "aliases"),
    "an integer that is none": ("yaml", "a: !!int abc\n", r"line 1, column 4: tags \(!\) are not allowed"),
    "an empty integer": ("yaml", "a: !!int ''\n", "tags"),
    "a date that is none": ("yaml", "a: !!timestamp x\n", "tags"),
    "tagged bytes": ("yaml", "a: !!binary eA==\n", "tags"),
    "a tagged mapping": ("yaml", "!!set {a}\n", "tags"),
    "an integer of 5000 digits in YAML": ("yaml", "a: " + "9" * 5000, "is not YAML: a number has too many digits"),
    "an integer of 5000 digits in JSON": ("json", "9" * 5000, r"r\.json is not JSON: a number has too many"),
    "an integer of 4000 digits": ("json", "9" * 4000, r"must be a mapping.*, got a whole number of 13288 bits$"),
    "UTF-16": ("json", "{}".encode("utf-16"), r"r\.json is not UTF-8 text .*UTF-16 or UTF-32: save it as UTF-8"),
    "UTF-32": ("json", "{}".encode("utf-32"), r"r\.json is not UTF-8 text .*UTF-16 or UTF-32: save it as UTF-8"),
    "a key twice": ("yaml", "a: 1\na: 2\n", r"r\.yaml: the key 'a' occurs twice in one mapping"),
    "Latin-1": ("yaml", "a: ä".encode("latin-1"), "is not UTF-8 text .*at byte 3"),
    "binary": ("json", bytes(range(256)), "is not UTF-8 text"),
    "control characters": ("yaml", "a: \x1b[31m", "is not YAML: .*special characters are not allowed"),
    "3000 levels of JSON": ("json", "[" * 3000 + "]" * 3000, "is nested in more than 50 levels"),
    "3000 levels of YAML": ("yaml", "[" * 3000 + "]" * 3000, "is nested in more than 50 levels"),
    "3000 levels of YAML blocks": ("yaml", "- " * 3000, "is nested in more than 50 levels"),
    "51 levels": ("json", "[" * 51 + "]" * 51, "is nested in more than 50 levels"),
    "50 levels": ("json", "[" * 50 + "]" * 50, r"must be a mapping with .*, got \[{50}\]{50}"),
    "an empty file": ("json", "", "is not JSON"),
    "empty YAML": ("yaml", "", "must be a mapping with .*, got None"),
    "two documents": ("yaml", "a: 1\n---\nb: 2\n", "is not YAML: expected a single document"),
    "a list as a key": ("yaml", "? [a]\n: b\n", "is not YAML: .*unhashable key"),
    "a long value": ("json", '{"schema_version": "' + "x" * 10**6 + '"}', r"must be 1, got 'x{199}\.\.\.; a newer"),
    "a long list": ("json", "[" + "1," * 10**6 + "1]", r"must be a mapping with .*, got \[1, 1.{190,200}\.\.\.$"),
    "a long key": ("json", '{"' + "x" * 10**6 + '": 1}', r"x{200}\.\.\.: unknown field; there are"),
    "many unknown fields": (
        "json",
        json.dumps(dict.fromkeys(map(str, range(9999)))),
        "9,974 more unknown fields",
    ),
    "4 MiB and more": ("json", " " * (2**22 + 1), "is larger than 4,194,304 bytes: it is no recipe"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_recipe_is_a_short_error(kind, tmp_path):
    ending, content, message = HOSTILE[kind]
    path = tmp_path / f"r.{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=f"(?s){message}") as caught:
        load(path, TOYS)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_byte_order_mark_is_no_part_of_the_recipe(ending, tmp_path):
    save(tmp_path / f"recipe.{ending}", toy_experiment(), TOYS)
    text = (tmp_path / f"recipe.{ending}").read_text()
    (tmp_path / f"marked.{ending}").write_text(text, encoding="utf-8-sig")
    assert load(tmp_path / f"marked.{ending}", TOYS) == toy_experiment()


def test_a_folder_and_a_file_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "recipe.json").mkdir()
    with pytest.raises(RecipeError, match=r"cannot read .*recipe\.json: it is a folder"):
        load(tmp_path / "recipe.json", TOYS)
    monkeypatch.setattr(
        "aimcore.recipe.recipe_files.open_location", mock.Mock(side_effect=PermissionError(13, "denied"))
    )
    with pytest.raises(RecipeError, match=r"cannot read .*other\.json: .*denied"):
        load(tmp_path / "other.json", TOYS)


@pytest.mark.parametrize("name", ["", 1, None, "../../x", "a b", "\x1b", "--index-url=x"])
def test_a_distribution_has_a_name(name):
    recipe = to_recipe(toy_experiment(), TOYS)
    recipe["plugins"] = {name: {"version": "1", "components": []}, **recipe["plugins"]}
    with pytest.raises(RecipeError, match=re.escape(f"plugins: {name!r} is not the name of a distribution")):
        from_recipe(recipe, TOYS)


def test_plain_values_are_as_shallow_as_a_file():
    deep: list = []
    for _ in range(600):
        deep = [deep]
    recipe = to_recipe(toy_experiment(), TOYS)
    with pytest.raises(RecipeError, match="is nested in more than 50 levels"):
        from_recipe(recipe | {"experiment": {**recipe["experiment"], "name": deep}}, TOYS)
    for text in ("[" * 600 + "]" * 600, "[" * 3000):
        with pytest.raises(RecipeError):
            changed(toy_experiment(), [f"name={text}"], TOYS)


@pytest.mark.parametrize(
    ("path", "value", "last"),
    [
        ("probes", ["nothing"] * 1000, ("probes", "items after the first 25 wrong ones are not checked")),
        (
            "optimizer",
            {"name": "toy", **MANY},
            ("optimizer", "975 more unknown fields"),
        ),
    ],
)
def test_errors_are_made_for_the_first_items_of_many(path, value, last):
    recipe = to_recipe(toy_experiment(), TOYS)
    with pytest.raises(RecipeError) as caught:
        from_recipe(recipe | {"experiment": {**recipe["experiment"], path: value}}, TOYS)
    assert len(caught.value.problems) == 26
    assert caught.value.problems[-1] == last


def test_more_distributions_than_anybody_installs_are_not_looked_up():
    recipe = to_recipe(toy_experiment(), TOYS)
    many = {f"d{number}": {"version": "1"} for number in range(1001)}
    with pytest.raises(RecipeError, match="plugins: must name at most 1000 distributions, got 1,001"):
        from_recipe(recipe | {"plugins": many}, TOYS)
