"""``aimcore diff``: what may be compared, how it is shown, and the exit status."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aimcore import Data, Experiment, recipe, run
from aimcore_heads import LinearHead, MLPHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

STUDY = str(Path(__file__).parents[3] / "examples" / "ablation_pattern.py")


def experiment(**changes: Any) -> Experiment:
    source = BundledFashionMNIST()
    fields: dict[str, Any] = {
        "name": "one",
        "data": Data(train=source, validation=source, batch_size=4, image_size=28),
        "trunk": ViT(width=16, depth=1, num_heads=2, patch_size=14),
        "objective": NextPatch(head=LinearHead(), prefix=None),
        "num_steps": 2,
    }
    return Experiment(**fields | changes)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "one"
    folder.mkdir(parents=True)
    recipe.save(folder / "recipe.json", experiment())
    return folder


def diff(*arguments: str) -> int:
    return run.command(["diff", *arguments])


def test_a_run_and_a_hand_written_recipe_of_it_are_equal(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.save(tmp_path / "again.yaml", experiment())
    text = (tmp_path / "again.yaml").read_text()
    (tmp_path / "again.yaml").write_text(text[text.index("experiment:") :].replace("    eval_crop: 0.875\n", "") +
                                         "schema_version: 1\n")  # fmt: skip
    assert diff(str(run_folder), str(tmp_path / "again.yaml")) == 0
    assert "no differences" in capsys.readouterr().out


def test_what_differs_is_a_table(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = experiment(objective=NextPatch(head=MLPHead(width=16, depth=2), prefix=None), num_steps=3)
    recipe.save(tmp_path / "other.json", other)
    assert diff(str(run_folder), str(tmp_path / "other.json")) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["objective.head", "linear", "mlp"] in lines
    assert ["num_steps", "2", "3"] in lines
    assert ["objective.head.depth", "-", "2"] in lines


def test_what_differs_is_json_for_programs(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder.parent / "two.json").write_text(recipe.dumps(experiment(seed=1, name="two")))
    assert diff(str(run_folder), str(run_folder.parent / "two.json"), "--json") == 1
    assert json.loads(capsys.readouterr().out) == [
        {"path": "name", "left": "one", "right": "two"},
        {"path": "seed", "left": 0, "right": 1},
    ]


def test_experiments_of_a_study_are_compared_at_any_scale(capsys: pytest.CaptureFixture[str]) -> None:
    assert diff(f"{STUDY}:raster", f"{STUDY}:small:raster") == 0
    assert diff(f"{STUDY}:smoke:raster", f"{STUDY}:smoke:spiral", "--json") == 1
    out = capsys.readouterr().out
    paths = [entry["path"] for entry in json.loads(out[out.index("[") :])]
    assert paths == ["name", "objective.ordering"]


def test_versions_count_as_written(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = recipe.read(run_folder / "recipe.json") | {"aimcore": "0.0.1"}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert diff(str(run_folder), str(tmp_path / "old.json"), "--json") == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["path"], entry["right"]) == ("aimcore", "0.0.1")


def test_a_recipe_of_absent_plugins_is_compared_as_written(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = recipe.read(run_folder / "recipe.json")
    strange["experiment"]["objective"]["ordering"] = {"name": "peano"}
    (tmp_path / "strange.json").write_text(json.dumps(strange))
    assert diff(str(run_folder), str(tmp_path / "strange.json")) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "is compared as written, because it cannot be loaded here" in out
    assert "objective.ordering raster peano" in out


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (STUDY, "ablation_pattern.py:SCALE:NAME; there are raster, spiral, checkerboard, fixed_random"),
        (f"{STUDY}:nothing", "no experiment of 'ablation-pattern' is called 'nothing'; there are raster, spiral,"),
        (f"{STUDY}:smoke:rastr", "is called 'rastr' (did you mean 'raster'?); there are raster, spiral, checkerboard"),
        (
            f"{STUDY}:smol:raster",
            "unknown scale 'smol' (did you mean 'smoke' or 'small'?); there are smoke,",
        ),
        ("out", f"it contains the runs out{os.sep}one: give one of them"),
        ("empty", "is not a run's folder"),
        ("missing.json", "there is no file"),
        ("runs/missing", "runs/missing does not exist: give a recipe, a run's folder, or STUDY.py:NAME"),
        ("list.json", "must be a mapping"),
    ],
)
def test_what_cannot_be_compared_is_reported(
    left: str, said: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = run_folder.parents[1]
    monkeypatch.chdir(root)
    (root / "empty").mkdir()
    (root / "list.json").write_text("[1]")
    assert diff(left, str(run_folder)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_values_and_fields_are_text_on_a_terminal(
    options: list[str], run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = recipe.read(run_folder / "recipe.json")
    strange["experiment"]["\x1b[31m[red]"] = "\x1b]0;title\x07[/]\x9b"
    (tmp_path / "\x1bstrange.json").write_text(json.dumps(strange))
    assert diff(str(run_folder), str(tmp_path / "\x1bstrange.json"), *options) == 1
    out = capsys.readouterr().out
    assert "[red]" in out
    assert not set(out) & set("\x1b\x07\x9b")


@pytest.mark.parametrize("plugins", [None, [1], "x", {"a": None}, {"a": {"versions": 1}}, {"a": [1]}])
def test_damaged_versions_are_compared_as_written(
    plugins: object, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.json").write_text(json.dumps(recipe.read(run_folder / "recipe.json") | {"plugins": plugins}))
    assert diff(str(run_folder), str(tmp_path / "odd.json")) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "is compared as written" in out
    assert "plugins" in out


def test_a_long_value_is_cut_in_the_table(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = recipe.read(run_folder / "recipe.json")
    strange["experiment"]["more"] = list(range(100_000))
    (tmp_path / "long.json").write_text(json.dumps(strange))
    assert diff(str(run_folder), str(tmp_path / "long.json")) == 1
    assert len(capsys.readouterr().out) < 20_000


@pytest.mark.parametrize("command", [["diff", "x"], ["run"], ["runs"], ["report"], ["check", "causality"]])
@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".py", "x" * 5000 + ".json", "a\0b.json"])
def test_a_name_that_no_system_allows_is_no_file(
    command: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.command([*command[:1], name, *command[1:]] if command[0] == "diff" else [*command, name]) == 2
    assert capsys.readouterr().err.startswith("error: ")
