"""The names of a run's files have one owner, and checkpoints are found by their names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimcore.io import run_folder
from aimcore.io.run_folder import RunFolder, StudyFolder, checkpoint_name, runs_in, step_of

CORE = Path(run_folder.__file__).parents[1]
NAMES = [
    *(value for name, value in vars(run_folder).items() if name.endswith(("_FILE", "_FOLDER")) and name.isupper()),
    "step_",
]
WORDS = {"report", "latest", "checkpoints"}
"""Also words of a sentence, or names of other things: only part of a path is the name of a folder."""


def spelt_in(path: Path) -> Iterator[str]:
    """Texts of a module that hold the name of a run's file, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    names = "|".join(re.escape(name) + ("/" if name in WORDS else r"(?![\w-])") for name in NAMES if name != "step_")
    pattern = re.compile(rf"(?<![\w./-])({names}|step_(?![a-z]))")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from (f"{path.relative_to(CORE)}: {node.value!r}" for _ in pattern.finditer(node.value))


def test_every_name_is_spelt_in_one_module() -> None:
    assert len(NAMES) == 16
    found = [text for path in CORE.rglob("*.py") for text in spelt_in(path) if path.name != "run_folder.py"]
    assert found == []


@pytest.mark.parametrize("text", ["recipe.json", "see error.txt", "checkpoints/last", "step_00000002", ".lock"])
def test_a_name_in_another_module_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CORE", tmp_path)
    (tmp_path / "other.py").write_text(f'"""Docstrings may say {text}."""\nNAME = f"{text}"\n')
    assert set(spelt_in(tmp_path / "other.py")) == {f"other.py: {text!r}"}


def test_checkpoints_are_found_newest_first_and_by_their_exact_names(tmp_path: Path) -> None:
    for name in ("step_00000002", "step_00000010", "step_123456789", "step_2", "step_000000003", "step_x", "other"):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    (tmp_path / "checkpoints" / "step_00000011").mkdir()
    (tmp_path / "checkpoints" / "step_00000012.partial").mkdir()
    run = RunFolder(tmp_path)
    assert [step_of(path) for path in run.complete_checkpoints()] == [123456789, 10, 2]
    assert [path.name for path in run.incomplete_checkpoints()] == ["step_00000012.partial", "step_00000011"]
    assert run.checkpoint(10) == tmp_path / "checkpoints" / checkpoint_name(10)


def test_training_ended_at_the_newest_checkpoint_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 4):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "manifest.json").touch()
    (run.checkpoint(2) / "model.safetensors").touch()
    assert run.final_checkpoint() is None
    (run.checkpoint(4) / "model.safetensors").touch()
    assert run.final_checkpoint() == run.checkpoint(4)


def test_runs_of_a_study_are_found_by_their_recipes(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    for name in ("b", "a"):
        study.run(name).path.mkdir()
        study.run(name).recipe.touch()
    (tmp_path / "empty").mkdir()
    assert runs_in(tmp_path) == [study.run("a"), study.run("b")]
