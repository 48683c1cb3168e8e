"""``aimcore runs``: the table, values for programs, and watching."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from aimcore import run
from aimcore.cli import runs as command
from aimcore.cli.runs import duration, runs_table
from aimcore.io.terminal import Terminal
from aimcore.running.run_listing import Run

ONE = Run(
    folder="study/one", experiment="one", state="running", step=40, num_steps=100, losses={"next_patch": 0.61234},
    patches_per_second=12345.6, seconds_left=90.0, age=2.0,
)  # fmt: skip
TWO = Run(folder="study/two", experiment="two", state="stale", step=0, losses={"text": 2.0, "image": 0.5}, age=7200.0)


def shown(*runs: Run) -> list[list[str]]:
    console = Terminal(file=io.StringIO(), width=80)
    console.print(runs_table(runs, Path("runs")))
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_runs_stand_below_their_folder() -> None:
    rows = shown(ONE, TWO)
    assert rows[2:] == [
        ["study"],
        ["one", "running", "40/100", "0.6123", "12,346", "1.5", "min", "2", "s"],
        ["two", "stale", "0", "2.0000", "-", "-", "2.0", "h"],
        ["image", "0.5000"],
    ]


def test_no_runs_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["runs", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_values_are_given_to_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "metrics.jsonl").write_text("")
    assert run.command(["runs", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["folder"], entry["state"], entry["step"]) == ("one", "running", 0)


def test_watching_looks_again_until_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[Path] = []
    naps = iter([None, None])

    def look(root: Path) -> tuple[Run, ...]:
        looks.append(root)
        return (ONE,)

    def nap(_: float) -> None:
        if next(naps, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "find_runs", look)
    monkeypatch.setattr(command.time, "sleep", nap)
    assert run.command(["runs", str(tmp_path), "--watch"]) == 0
    assert len(looks) == 3
    assert "running" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["runs", "/nowhere"]) == 2
    assert "there is no folder /nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (90, "1.5 min"), (900, "15 min"), (5400, "1.5 h"), (39600, "11 h"), (200000, "2.3 d")],
)
def test_durations_are_reported_in_their_largest_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", ["-3", "nan", "inf", "0", "0.05", "often"])
def test_watching_takes_a_time_between_looks(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.command(["runs", str(tmp_path), "--watch", seconds])
    assert f"argument --watch: must be a number of seconds, at least 0.1, got '{seconds}'" in capsys.readouterr().err


def test_names_are_text_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[red]study[!]" / "\x1b[31m1\x07:smile:\n"
    folder.mkdir(parents=True)
    line = {"step": 0, "seconds": 1, "patches_per_second": 1, "losses": {"a": 1.0, "\x1b]0;t\x07": 0.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert run.command(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[red]study[!]" in out
    assert r"\x1b[31m1\x07:smile:\n" in out
    assert r"\x1b]0;t\x07" in out
    assert not set(out) & set("\x1b\x07")


def test_values_for_programs_hold_names_as_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31mä\x9b\u202e"
    (tmp_path / name).mkdir()
    (tmp_path / name / "metrics.jsonl").write_text("")
    assert run.command(["runs", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)[0]["folder"] == name
    assert r"\u001b[31mä\u009b\u202e" in out
