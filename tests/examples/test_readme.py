"""The README: what it shows must work as it is printed."""

import re
from pathlib import Path

import pytest

from aimcore import Experiment
from aimcore.report import ExperimentSummary

README = Path(__file__).parents[2] / "README.md"


def test_the_two_commands_are_there_to_be_copied() -> None:
    text = README.read_text(encoding="utf-8")
    assert "pip install -e . && python -m aimcore.run examples/ablation_pattern.py" in text
    assert "pip install -e '.[test]' && pytest" in text


def test_the_first_experiment_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    entry = names["summary"]
    assert isinstance(entry, ExperimentSummary)
    assert isinstance(names["experiment"], Experiment)
    assert entry.status == "finished"
    assert (tmp_path / "runs" / "first" / "recipe.json").exists()
