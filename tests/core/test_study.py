"""Studies from files."""

import os
import sys
from pathlib import Path

import attrs
import pytest

from aimcore import Data, Experiment, LabelPoint, Scaling, Study, Weights, recipe
from aimcore.contracts.errors import InvalidStudy, InvalidValue, RecipeError
from aimcore.running.study_files import changed, load_study, selected
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

STUDY = """
from helper import NAME
from aimcore import Data, Experiment, Study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    source = BundledFashionMNIST()
    return Study(name=NAME + scale, experiments=[Experiment(
        name="one",
        data=Data(train=source, validation=source, batch_size=4, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=14),
        objective=NextPatch(head=LinearHead()),
        num_steps=2,
    )])
"""


def experiment(name: str) -> Experiment:
    source = BundledFashionMNIST()
    return Experiment(
        name=name,
        data=Data(train=source, validation=source, batch_size=4, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=14),
        objective=NextPatch(head=LinearHead()),
        num_steps=2,
    )


def two() -> Study:
    paper = {"one": {"linear": 0.5}, "two": {"linear": 0.6}}
    return Study(name="both", source="a table", experiments=[experiment("one"), experiment("two")], paper=paper)


def test_a_python_file_gives_the_study_of_a_scale_and_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("NAME = 'table-'")
    (tmp_path / "table.py").write_text(STUDY)
    study = load_study(tmp_path / "table.py", "smoke")
    assert study.name == "table-smoke"
    assert [one.name for one in study.experiments] == ["one"]


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".JSON"])
def test_a_recipe_is_a_study_of_one_experiment(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"recipe{suffix}"
    recipe.save(path, experiment("one"))
    study = load_study(path, "small")
    assert study.name == "one"
    assert study.experiments == (experiment("one"),)


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "ablation_pattern.py").write_text("")
    with pytest.raises(InvalidStudy, match=r"no such file: .*_patern\.py \(did you mean .*ablation_pattern\.py"):
        load_study(tmp_path / "ablation_patern.py", "small")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.json")  # reading it would wait for ever
    with pytest.raises(InvalidStudy, match=r"^\S*recipe\.json is not a regular file\. Give"):
        load_study(tmp_path / "recipe.json", "small")


def test_a_folder_is_answered_with_the_recipes_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("raster", "spiral"):
        (tmp_path / "smoke" / name).mkdir(parents=True)
        recipe.save(tmp_path / "smoke" / name / "recipe.json", experiment(name))
    with pytest.raises(InvalidStudy, match=r"^smoke is a folder; .* give smoke/raster/recipe.json or smoke/spiral/rec"):
        load_study(Path("smoke"), "small")
    with pytest.raises(
        InvalidStudy, match=r"smoke/raster is a folder; .* again, give smoke/raster/recipe\.json\. Give"
    ):
        load_study(Path("smoke/raster"), "small")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InvalidStudy, match=r"notes\.txt is neither a study \(\.py\) nor a recipe"):
        load_study(tmp_path / "notes.txt", "small")


USERS_ERRORS = {
    "syntax": ("x = 1\ndef study(:\n", "table.py, line 2: SyntaxError: invalid syntax"),
    "a tab among spaces": ("if 1:\n        x = 1\n\ty = 2\n", "table.py, line 3: TabError: inconsistent use of tabs"),
    "no text": ("\x00", "table.py: "),
    "a name that a module lacks": ("\nfrom aimcore import Nothing\n", "table.py, line 2: ImportError: cannot import"),
    "a module that is not installed": (
        "import aimcore_hilbert\n", "table.py, line 1: imports aimcore_hilbert, which is not installed: install what"
    ),
    "an unknown name": ("x = y\n", "table.py, line 1: NameError: name 'y' is not defined"),
    "a key": ("SIZES = {}\ndef study(scale):\n    return SIZES[scale]\n", "table.py, line 3: KeyError: 'small'"),
    "an error of a library": (
        "import json\ndef study(scale):\n    json.loads('{')\n", r"table.py, line 3 \(in .*decoder.py, line \d+\): json"
    ),
    "an error of a neighbour": (
        "import neighbour\n", r"table.py, line 1 \(in .*neighbour.py, line 1\): imports no_such_module, which is not"
    ),
    "syntax of a neighbour": ("import bad_neighbour\n", r"bad_neighbour.py, line 1: SyntaxError"),
    "an error beside Exception": ("class Panic(BaseException): pass\nraise Panic('x')\n", "line 2: .*Panic: x"),
    "an exit": ("import sys\nsys.exit(0)\n", r"table.py, line 2: ends the program \(SystemExit: 0\)"),
    "an exit by a library": ("import leaving\nleaving.go()\n", r"table.py, line 2: ends the program \(SystemExit: 3"),
    "an exit later": ("def study(scale):\n    raise SystemExit('x')\n", r"line 2: ends the program \(SystemExit: 'x'"),
    "no argument": ("\ndef study():\n    pass\n", r"table.py, line 2: study must take the scale, 'def study\(sc"),
    "two arguments": ("def study(scale, seed): pass\n", "table.py, line 1: study must take the scale.*'seed'"),
    "a long message": ("raise ValueError('x' * 10**6)", r"table.py, line 1: ValueError: x{1900,2000}\.\.\. \("),
    "an exception that cannot be written": (
        "class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", "table.py, line 3: .*E: <exception str"
    ),
    "endless recursion": ("def study(scale): return study(scale)\n", "table.py, line 1: RecursionError"),
    "a result that cannot be written": (
        "class R:\n    def __repr__(self): 1 / 0\ndef study(scale): return R()\n", "line 2.*: ZeroDivisionError"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", USERS_ERRORS)
def test_what_a_study_file_raises_is_reported_with_file_and_line(kind: str, tmp_path: Path) -> None:
    text, message = USERS_ERRORS[kind]
    (tmp_path / "neighbour.py").write_text("import no_such_module\n")
    (tmp_path / "bad_neighbour.py").write_text("def\n")
    (tmp_path / "leaving.py").write_text("def go(): raise SystemExit(3)\n")
    (tmp_path / "table.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(InvalidStudy, match=f"(?s)^{tmp_path}/(?:.*){message}") as caught:
        load_study(tmp_path / "table.py", "small")
    assert len(str(caught.value)) < 3000
    assert caught.value.__cause__ is not None
    assert sys.path == before


def test_a_relative_path_is_reported_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.py").write_text("import aimcore_hilbert\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidStudy, match=r"^table\.py, line 1: imports aimcore_hilbert"):
        load_study(Path("table.py"), "smoke")


def test_a_value_that_is_refused_in_a_study_file_has_its_place_noted(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text("from aimcore_optimizers import AdamW\nAdamW(peak_lr=0)\n")
    with pytest.raises(InvalidValue, match="peak_lr") as caught:
        load_study(tmp_path / "table.py", "smoke")
    (note,) = caught.value.__notes__
    assert note == f"in {tmp_path}/table.py, line 2"


def test_ctrl_c_in_a_study_file_is_not_its_error(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_study(tmp_path / "table.py", "smoke")


def test_neighbours_can_be_imported_when_the_study_is_made(tmp_path: Path) -> None:
    (tmp_path / "late_neighbour.py").write_text("NAME = 'late-'\n")
    text = STUDY.replace("from helper import NAME\n", "").replace(
        "    source =", "    from late_neighbour import NAME\n    source ="
    )
    (tmp_path / "table.py").write_text(text)
    assert load_study(tmp_path / "table.py", "smoke").name == "late-smoke"


def test_a_file_without_a_study_function_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("study = 3")
    with pytest.raises(InvalidStudy, match=r"empty\.py defines no function study\(scale\) -> Study"):
        load_study(tmp_path / "empty.py", "small")


def test_a_study_function_that_gives_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def study(scale): return [scale]")
    with pytest.raises(InvalidStudy, match=r"must return an aimcore\.Study, it returned \['small'\]"):
        load_study(tmp_path / "wrong.py", "small")


def test_an_unknown_scale_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match="unknown scale 'huge'; there are smoke, small, paper"):
        load_study(tmp_path / "any.py", "huge")  # type: ignore[arg-type]


def test_only_keeps_the_named_experiments_and_their_row_of_the_paper() -> None:
    study = selected(two(), ["two"])
    assert [one.name for one in study.experiments] == ["two"]
    assert study.paper == {"two": {"linear": 0.6}}


def test_only_refuses_a_name_that_no_experiment_has() -> None:
    with pytest.raises(
        InvalidStudy, match=r"no experiment of 'both' is called 'tow' \(did you mean 'two'\?\); there are one, two$"
    ):
        selected(two(), ["one", "tow"])


def test_a_change_reaches_every_experiment() -> None:
    study = changed(two(), ["num_steps=7", "objective.head=mlp"])
    assert [one.num_steps for one in study.experiments] == [7, 7]
    assert study.experiments[0].objective.head.name == "mlp"  # type: ignore[attr-defined]


def test_a_change_that_fits_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="num_stepz"):
        changed(two(), ["num_stepz=7"])


def test_a_study_over_seeds_repeats_every_experiment_seed_by_seed_with_parents_of_the_same_seed() -> None:
    parent = experiment("parent")
    child = attrs.evolve(parent, name="child", initial_weights=Weights(experiment="parent"), seed=7)
    study = Study(name="s", experiments=[parent, child], paper={"child": {"linear": 0.5}}).over_seeds(2)
    assert [(one.name, one.seed) for one in study.experiments] == [
        ("parent-seed-0", 0),
        ("child-seed-0", 0),
        ("parent-seed-1", 1),
        ("child-seed-1", 1),
    ]
    assert [one.initial_weights for one in study.experiments] == [
        None,
        Weights(experiment="parent-seed-0"),
        None,
        Weights(experiment="parent-seed-1"),
    ]
    assert study.paper == {"child-seed-0": {"linear": 0.5}, "child-seed-1": {"linear": 0.5}}


def test_no_seeds_and_a_scaling_study_over_seeds_are_refused() -> None:
    study = Study(name="s", experiments=[experiment("parent")])
    with pytest.raises(InvalidValue, match="num_seeds: must be at least 1"):
        study.over_seeds(0)
    with pytest.raises(InvalidValue, match=r"num_seeds: must be a whole number, got \[0, 1\]: with N, the seeds"):
        study.over_seeds([0, 1])  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="scaling: a scaling study cannot be repeated"):
        attrs.evolve(study, scaling=Scaling(curves={"a": ["parent"]})).over_seeds(2)


def test_points_of_label_curves_name_experiments_of_the_study_once_for_each_number() -> None:
    study = Study(name="s", experiments=[experiment("a"), experiment("b")])
    points = [LabelPoint(curve="tuned", per_class=10, experiments=["a", "b"])]
    assert attrs.evolve(study, label_points=points).label_points == tuple(points)
    with pytest.raises(InvalidValue, match=r"label_points.1: no experiment is called 'c'"):
        attrs.evolve(study, label_points=[*points, LabelPoint(curve="tuned", per_class=100, experiments=["c"])])
    with pytest.raises(InvalidValue, match=r"label_points: curve 'tuned' has two points for 10 labels per class"):
        attrs.evolve(study, label_points=points * 2)
    with pytest.raises(InvalidValue, match=r"per_class: must be at least 1(.|\n)*experiments: must name at least one"):
        LabelPoint(curve="tuned", per_class=0, experiments=[])


def test_points_of_label_curves_are_over_all_seeds_of_a_study() -> None:
    points = [LabelPoint(curve="tuned", per_class=10, experiments=["a", "b"])]
    study = Study(name="s", experiments=[experiment("a"), experiment("b")], label_points=points).over_seeds(2)
    assert study.label_points[0].experiments == ("a-seed-0", "b-seed-0", "a-seed-1", "b-seed-1")


def test_a_negative_seed_is_refused() -> None:
    """Elsewhere -1 often means a random seed, which no recipe could repeat."""
    with pytest.raises(InvalidValue, match="seed: must be at least 0, got -1"):
        attrs.evolve(experiment("one"), seed=-1)
