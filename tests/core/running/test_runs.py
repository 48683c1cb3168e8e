"""What a run is, from its files alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import run_to_end

from aimcore.contracts.errors import RunFolderError
from aimcore.io.run_folder import HOLDER_FILE, LOCK_FILE
from aimcore.running.folder_lock import FolderLock
from aimcore.running.run_listing import Run, find_runs

NOW = 1_000_000.0


def write(path: Path, content: object, age: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(path, (NOW - age, NOW - age))


def lines(steps: range, seconds: float = 2.0) -> str:
    return "".join(
        json.dumps({"step": step, "losses": {"a": 1.0 / (1 + step)}, "seconds": seconds, "patches_per_second": 100.0})
        + "\n"
        for step in steps
    )


def make(folder: Path, steps: range, *, age: float, seconds: float = 2.0, num_steps: int = 100) -> None:
    write(folder / "recipe.json", {"experiment": {"name": folder.name, "num_steps": num_steps}}, age + 60)
    if steps:
        write(folder / "metrics.jsonl", lines(steps, seconds), age)


def summarize(study: Path, statuses: dict[str, str], age: float) -> None:
    entries = [{"name": name, "status": status, "seed": 0, "recipe": ""} for name, status in statuses.items()]
    write(study / "summary.json", {"schema_version": 1, "study": "table", "machine": {}, "experiments": entries}, age)


def only(root: Path) -> Run:
    (run,) = find_runs(root, now=NOW)
    return run


def test_a_run_that_writes_is_running_and_tells_its_pace(tmp_path: Path) -> None:
    make(tmp_path / "study" / "one", range(40), age=3)
    run = only(tmp_path)
    assert (run.folder, run.experiment, run.state, run.step, run.num_steps) == ("study/one", "one", "running", 40, 100)
    assert (run.losses, run.patches_per_second, run.seconds_left, run.age) == ({"a": 1 / 40}, 100.0, 120.0, 3.0)


@pytest.mark.parametrize(
    ("age", "seconds", "every", "state"),
    [
        (299, 0.1, 1, "running"),
        (301, 0.1, 1, "stale"),
        (301, 20.0, 1, "running"),
        (401, 20.0, 1, "stale"),
        (401, 2.0, 50, "running"),
    ],
)
def test_silence_is_measured_by_the_time_between_lines(
    tmp_path: Path, age: float, seconds: float, every: int, state: str
) -> None:
    make(tmp_path / "one", range(0, 500, every), age=age, seconds=seconds, num_steps=1000)
    assert only(tmp_path).state == state


@pytest.mark.parametrize("steps", [range(0), range(100)])
def test_before_the_first_line_and_after_the_last_step_silence_may_be_long(tmp_path: Path, steps: range) -> None:
    make(tmp_path / "one", steps, age=3500)
    assert only(tmp_path).state == "running"
    make(tmp_path / "one", steps, age=3700)
    assert only(tmp_path).state == "stale"


@pytest.mark.parametrize("status", ["finished", "interrupted", "failed"])
def test_the_summary_tells_how_a_run_ended(tmp_path: Path, status: str) -> None:
    make(tmp_path / "study" / "one", range(100), age=10)
    summarize(tmp_path / "study", {"one": status}, age=5)
    run = only(tmp_path)
    assert (run.state, run.study, run.seconds_left) == (status, "table", None)


def test_a_run_that_goes_on_is_running_whatever_the_old_summary_says(tmp_path: Path) -> None:
    make(tmp_path / "study" / "one", range(50), age=10)
    summarize(tmp_path / "study", {"one": "interrupted"}, age=400)
    assert only(tmp_path).state == "running"
    summarize(tmp_path / "study", {"one": "finished"}, age=400)
    assert only(tmp_path).state == "finished"


def test_an_error_that_was_written_last_is_a_failure(tmp_path: Path) -> None:
    make(tmp_path / "one", range(50), age=10)
    write(tmp_path / "one" / "error.txt", "Traceback ...", age=9)
    assert only(tmp_path).state == "failed"
    write(tmp_path / "one" / "metrics.jsonl", lines(range(60)), age=1)
    assert only(tmp_path).state == "running"


def test_runs_are_found_at_any_depth_and_reported_by_folder(tmp_path: Path) -> None:
    for folder in ("b/two", "a/one", "c"):
        make(tmp_path / folder, range(1), age=1)
    assert [run.folder for run in find_runs(tmp_path, now=NOW)] == ["a/one", "b/two", "c"]
    assert only(tmp_path / "c").folder == "."


def test_damaged_files_are_reported_as_far_as_they_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "one" / "recipe.json", "{", age=1)
    write(tmp_path / "one" / "metrics.jsonl", lines(range(3)) + '{"step": 3, "lo', age=1)
    write(tmp_path / "summary.json", "[]", age=1)
    run = only(tmp_path)
    assert (run.experiment, run.step, run.num_steps, run.state) == ("one", 3, None, "running")


def test_a_long_file_of_metrics_is_read_from_its_end(tmp_path: Path) -> None:
    make(tmp_path / "one", range(5000), age=1, num_steps=6000)
    run = only(tmp_path)
    assert (run.step, run.seconds_left) == (5000, 2000.0)


def test_a_real_run_is_reported(make_study: Any, training: Any, tmp_path: Path) -> None:
    from aimcore.running.study_run import run_study

    training.statuses["two"] = "interrupted"
    run_study(make_study("one", "two"), tmp_path / "out", scale="smoke")
    assert [(run.experiment, run.state) for run in find_runs(tmp_path)] == [("one", "finished"), ("two", "interrupted")]


@pytest.mark.parametrize("locked", ["study", "study/one"])
def test_a_run_whose_process_was_killed_is_stale_at_once(tmp_path: Path, locked: str) -> None:
    make(tmp_path / "study" / "one", range(50), age=1)
    with FolderLock(tmp_path / locked):
        assert only(tmp_path).state == "running"
        kept = {name: (tmp_path / locked / name).read_text() for name in (LOCK_FILE, HOLDER_FILE)}
    assert only(tmp_path).state == "running"  # without a lock, nothing is known of the process
    ended = run_to_end([sys.executable, "-c", "import os; print(os.getpid())"]).stdout.strip()
    for name, text in kept.items():
        (tmp_path / locked / name).write_text(text.replace(str(os.getpid()), ended))
    assert only(tmp_path).state == "stale"
    (tmp_path / locked / HOLDER_FILE).write_text(kept[HOLDER_FILE].replace(str(os.getpid()), ended).replace(
        os.uname().nodename, "elsewhere"))  # fmt: skip
    assert only(tmp_path).state == "running"


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no folder .*nowhere"):
        find_runs(tmp_path / "nowhere")


DAMAGED_LINES = [
    "null",
    "[]",
    "{",
    "\x00",
    '{"step": "3", "seconds": 1, "patches_per_second": 1}',
    '{"step": -1, "seconds": 1, "patches_per_second": 1}',
    '{"step": 1e400, "seconds": 1, "patches_per_second": 1}',
    '{"step": true, "seconds": 1, "patches_per_second": 1}',
    '{"step": 3, "seconds": null, "patches_per_second": 1}',
    '{"step": 3, "seconds": NaN, "patches_per_second": 1}',
    '{"step": 3, "seconds": -1, "patches_per_second": 1}',
    '{"step": 3, "seconds": 1, "patches_per_second": [1]}',
    '{"step": 3, "seconds": 1, "patches_per_second": 1e300}',
    pytest.param('{"step": 1' + "0" * 30 + ', "seconds": 1, "patches_per_second": 1}', id="a step of 31 digits"),
    pytest.param('{"step": ' + "9" * 5000 + "}", id="5000 digits"),
    pytest.param("[" * 10_000, id="deep"),
]


@pytest.mark.parametrize("line", DAMAGED_LINES)
def test_a_damaged_line_is_left_out_wherever_it_is(tmp_path: Path, line: str) -> None:
    make(tmp_path / "one", range(3), age=1)
    good = lines(range(3))
    write(tmp_path / "one" / "metrics.jsonl", line + "\n" + good + line + "\n", age=1)
    assert only(tmp_path).step == 3
    write(tmp_path / "one" / "metrics.jsonl", good + line + "\n" + lines(range(3, 5)), age=1)
    assert (only(tmp_path).step, only(tmp_path).patches_per_second) == (5, 100.0)


@pytest.mark.parametrize(
    ("losses", "read"),
    [
        ("{}", {}), ("[1]", {}), ('"a"', {}), ("null", {}),
        ('{"a": "x", "b": 0.5, "c": null, "d": NaN, "e": true, "f": [1]}', {"b": 0.5}),
    ],
)  # fmt: skip
def test_losses_that_are_no_numbers_are_left_out(tmp_path: Path, losses: str, read: dict[str, float]) -> None:
    line = f'{{"step": 0, "seconds": 1, "patches_per_second": 1, "losses": {losses}}}\n'
    write(tmp_path / "one" / "metrics.jsonl", line, age=1)
    assert only(tmp_path).losses == read


@pytest.mark.parametrize(
    "recipe",
    [
        "[]", "null", '{"experiment": [1]}', '{"experiment": {"name": 7, "num_steps": "100"}}',
        '{"experiment": {"name": null, "num_steps": true}}', '{"experiment": {"num_steps": -1}}',
        '{"experiment": {"num_steps": 1e5}}', f'{{"experiment": {{"num_steps": {10**30}}}}}',
        pytest.param("[" * 10_000, id="deep"), pytest.param("9" * 5000, id="5000 digits"),
    ],
)  # fmt: skip
def test_what_a_recipe_does_not_say_is_left_open(tmp_path: Path, recipe: str) -> None:
    write(tmp_path / "one" / "recipe.json", recipe, age=5)
    write(tmp_path / "one" / "metrics.jsonl", lines(range(2)), age=1)
    run = only(tmp_path)
    assert (run.experiment, run.num_steps, run.seconds_left, run.step) == ("one", None, None, 2)


SUMMARIES = [b"\xff\xfe", b"[" * 10_000, b"9" * 5000, b"[]", b'{"study": 7}', b'{"experiments": {"a": 1}}']


@pytest.mark.parametrize("summary", SUMMARIES, ids=range(len(SUMMARIES)))
def test_a_damaged_summary_says_nothing(tmp_path: Path, summary: bytes) -> None:
    make(tmp_path / "one", range(2), age=1)
    (tmp_path / "summary.json").write_bytes(summary)
    assert (only(tmp_path).state, only(tmp_path).study) == ("running", None)


def test_a_pipe_a_folder_and_a_broken_link_are_no_files_of_runs(tmp_path: Path) -> None:
    for name in ("pipe", "folder", "link"):
        write(tmp_path / name / "recipe.json", "{}", age=1)
    os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
    (tmp_path / "folder" / "metrics.jsonl").mkdir()
    (tmp_path / "link" / "metrics.jsonl").symlink_to("nowhere")
    assert [(run.experiment, run.step) for run in find_runs(tmp_path)] == [("folder", 0), ("link", 0), ("pipe", 0)]


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    write(tmp_path / "one" / "recipe.json", {"experiment": {"name": "x" * 10**6}}, age=1)
    assert only(tmp_path).experiment == "x" * 200 + "..."
