"""The jsonl tracker."""

import json
from pathlib import Path

import fsspec
import pytest

from aimcore import InvalidValue
from aimcore.io.atomic_files import CannotWrite
from aimcore_trackers import JSONLines
from aimcore_trackers.json_lines import JSONLinesRun, NotATrackerFile


def steps(text: str) -> list[int]:
    return [json.loads(line)["step"] for line in text.splitlines()]


def test_a_local_file_grows_line_by_line(tmp_path: Path) -> None:
    run = JSONLines(url=f"{tmp_path}/new/{{run}}.jsonl").open("runs/study/raster", {}, 0)
    run.log(0, {"loss/next_patch": 0.5})
    assert json.loads((tmp_path / "new" / "raster.jsonl").read_text()) == {"step": 0, "loss/next_patch": 0.5}
    run.close("finished")


def test_resuming_drops_what_lies_beyond_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"st')
    run = JSONLines(url=str(path)).open("raster", {}, 2)
    run.log(2, {})
    run.close("finished")
    assert steps(path.read_text()) == [0, 1, 2]


def test_a_new_run_begins_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n')
    JSONLines(url=str(path)).open("raster", {}, 0).close("finished")
    assert path.read_text() == ""


def test_an_object_store_is_written_once_a_minute_and_at_the_end() -> None:
    now = iter([0.0, 0.0, 30.0, 61.0, 61.0, 62.0, 62.0])
    run = JSONLinesRun("memory://tracker/metrics.jsonl", 0, clock=lambda: next(now))
    files, path = fsspec.core.url_to_fs("memory://tracker/metrics.jsonl")
    sizes = []
    for step in range(3):
        run.log(step, {})
        sizes.append(len(steps(files.cat_file(path).decode())))
    run.close("finished")
    assert sizes == [0, 2, 2]
    assert steps(files.cat_file(path).decode()) == [0, 1, 2]


def test_a_tracker_without_a_place_is_refused() -> None:
    with pytest.raises(InvalidValue, match="url: must name a file"):
        JSONLines(url="")


OTHERS = {
    "text": b"My thesis.\n",
    "text without an end": b"My thesis.",
    "metrics of a run": b'{"step": 0, "losses": {"next_patch": 0.5}, "lr": 0.1}\n',
    "one of our lines, and another": b'{"step": 0}\nfoo\n',
    "JSON lines without steps": b'{"loss": 0.5}\n',
    "steps that are no integers": b'{"step": true}\n',
    "a list": b"[1, 2]\n",
    "an integer of 5000 digits": b'{"step": ' + b"9" * 5000 + b"}\n",
    "deep nesting": b"[" * 100_000 + b"\n",
    "no line for very long": b'{"step": ' + b" " * 2**21,
    "bytes": b"\xff\xfe\x00\n",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("resume_step", [0, 2])
@pytest.mark.parametrize("place", ["{tmp_path}/thesis.txt", "memory://other/thesis.txt"])
def test_a_file_that_is_not_the_trackers_is_kept(kind: str, resume_step: int, place: str, tmp_path: Path) -> None:
    url = place.format(tmp_path=tmp_path)
    files, path = fsspec.core.url_to_fs(url)
    files.pipe_file(path, OTHERS[kind])
    with pytest.raises(NotATrackerFile, match=r"thesis\.txt is not replaced.*line [12] is .*Give the tracker a url"):
        JSONLines(url=url).open("runs/one", {}, resume_step)
    assert files.cat_file(path) == OTHERS[kind]


def test_a_folder_or_device_is_not_the_trackers(tmp_path: Path) -> None:
    for url in (str(tmp_path), "/dev/zero"):
        with pytest.raises(NotATrackerFile, match=f"{url} is not a file"):
            JSONLines(url=url).open("runs/one", {}, 0)


@pytest.mark.parametrize("cut", ["", "{", '{"step": 1, "los'])
def test_a_file_that_a_crash_left_with_half_a_line_is_the_trackers(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "gradient_norm": null, "loss": NaN}\n' + cut)
    JSONLines(url=str(path)).open("runs/one", {}, 1).close("finished")
    assert path.read_text() == '{"step": 0, "gradient_norm": null, "loss": NaN}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
def test_a_full_disk_is_named_when_a_line_is_written_and_when_the_file_is_closed(tmp_path: Path) -> None:
    run = JSONLines(url=str(tmp_path / "metrics.jsonl")).open("raster", {}, 0)
    assert run._local is not None
    run._local.close()
    run._local._file = open("/dev/full", "ab")  # noqa: SIM115
    for act in (lambda: run.log(0, {}), lambda: run.close("failed")):
        with pytest.raises(CannotWrite, match=r"metrics\.jsonl: No space left on device"):
            act()
