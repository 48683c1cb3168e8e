"""What a report reads from a study's folder, and what it says of what it cannot read."""

import json
import math
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from report_material import entry, make_run

from aimcore.report.run_records import Absence, RunFiles, files_of


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    make_run(tmp_path / "0", "raster", 0)
    return files_of(entry("raster", "0/recipe.json", 0, ()), tmp_path)


def folder_of(run: RunFiles) -> Path:
    assert isinstance(run.folder, Path)
    return run.folder


def reason(found: object) -> str:
    assert isinstance(found, Absence)
    return found.reason


def test_losses_are_read_by_name(run: RunFiles) -> None:
    lines = [{"step": 0, "losses": {"a": 2.0, "b": 1}}, {"step": 5, "losses": {"a": 1.5}}]
    (folder_of(run) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = run.curves()
    assert not isinstance(curves, Absence)
    assert {name: (curve.steps.tolist(), curve.values.tolist()) for name, curve in curves.items()} == {
        "a": ([0, 5], [2.0, 1.5]),
        "b": ([0], [1.0]),
    }


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "los',
        "",
        "[]",
        "7",
        '{"step": 1}',
        '{"step": "x", "losses": {"a": 1}}',
        '{"step": null, "losses": {"a": 1}}',
        '{"step": 1, "losses": [1]}',
        '{"step": 1, "losses": {"a": NaN}}',
        '{"step": 1, "losses": {"a": Infinity}}',
        '{"step": 1, "losses": {"a": true}}',
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"step": ' + "9" * 5000 + "}", id="an integer of 5000 digits"),
        "\x00",
    ],
)
def test_lines_that_are_no_metrics_are_left_out(run: RunFiles, line: str) -> None:
    (folder_of(run) / "metrics.jsonl").write_text('{"step": 0, "losses": {"a": 2.0}}\n' + line)
    curves = run.curves()
    assert not isinstance(curves, Absence)
    assert curves["a"].values.tolist() == [2.0]


def test_metrics_without_losses_are_absent(run: RunFiles) -> None:
    (folder_of(run) / "metrics.jsonl").write_text("{}\n")
    assert reason(run.curves()) == "0/metrics.jsonl has no losses"


def test_chunks_that_are_not_predicted_are_gaps(run: RunFiles) -> None:
    chunks = run.chunks()
    assert not isinstance(chunks, Absence)
    assert math.isnan(chunks["next_patch"][0])
    np.testing.assert_allclose(chunks["next_patch"][1:3], [0.5, 0.49])


@pytest.mark.parametrize("record", [{}, {"losses": []}, {"losses": {"a": {"by_chunk": None}}},
                                    {"losses": {"a": {"by_chunk": ["x"]}}}, {"losses": {"a": {"by_chunk": [None]}}},
                                    {"losses": {"a": 3}}])  # fmt: skip
def test_a_validation_without_parts_is_absent(run: RunFiles, record: Any) -> None:
    (folder_of(run) / "validation.json").write_text(json.dumps(record))
    assert reason(run.chunks()).endswith("has no loss by parts of the sequence")


@pytest.mark.parametrize("name", ["metrics.jsonl", "validation.json", "recipe.json"])
def test_a_missing_file_is_named(run: RunFiles, name: str) -> None:
    (folder_of(run) / name).unlink()
    found = {"metrics.jsonl": run.curves, "validation.json": run.chunks, "recipe.json": run.recipe}[name]()
    assert reason(found) == f"0/{name} does not exist"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is damaged"),
        (b"\xff", "is damaged"),
        (b"[]", "contains no object"),
        pytest.param(b"[" * 100_000, "is damaged", id="deep"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "is damaged", id="an integer of 5000 digits"),
    ],
)
def test_damaged_json_is_reported(run: RunFiles, text: bytes, message: str) -> None:
    (folder_of(run) / "recipe.json").write_bytes(text)
    assert message in reason(run.recipe())


@pytest.mark.parametrize("recipe", ["../0/recipe.json", "/etc/hostname", "0/../../recipe.json", "0\0/recipe.json"])
def test_files_outside_the_study_are_not_read(recipe: str, tmp_path: Path) -> None:
    make_run(tmp_path / "0", "raster", 0)
    (tmp_path / "study").mkdir()
    run = files_of(attrs.evolve(entry("raster", "", 0, ()), recipe=recipe), tmp_path / "study")
    assert "must be in the study's folder" in reason(run.recipe())
    assert "must be in the study's folder" in reason(run.curves())


@pytest.mark.parametrize("name", ["metrics.jsonl", "validation.json", "recipe.json"])
def test_links_out_of_the_run_are_not_followed(run: RunFiles, name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"step": 0, "losses": {"next_patch": {"by_chunk": [0.5]}}}')
    link_to(tmp_path / "secret", folder_of(run) / name)
    found = {"metrics.jsonl": run.metrics, "validation.json": run.chunks, "recipe.json": run.recipe}[name]()
    assert reason(found) == f"0/{name} is a link out of the run's folder, which is not followed"


def test_a_linked_error_is_not_shown(run: RunFiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    link_to(tmp_path / "secret", folder_of(run) / "error.txt")
    assert run.error() is None


def link_to(target: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_links_within_the_run_and_to_it_are_followed(tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere", "raster", 0)
    (tmp_path / "0").symlink_to("elsewhere")
    (tmp_path / "elsewhere" / "recipe.json").rename(tmp_path / "elsewhere" / "first.json")
    (tmp_path / "elsewhere" / "recipe.json").symlink_to("first.json")
    assert not isinstance(files_of(entry("raster", "0/recipe.json", 0, ()), tmp_path).recipe(), Absence)


def test_a_long_traceback_is_shown_from_its_end(run: RunFiles) -> None:
    (folder_of(run) / "error.txt").write_text("x" * 2**18 + "the end")
    message = str(run.error())
    assert message.startswith("[7 bytes before this are left out]\nx")
    assert message.endswith("the end")
    assert len(message) < 2**18 + 100


def test_a_file_that_may_not_be_read_is_named(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder_of(run) / "error.txt").write_text("")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    assert reason(run.metrics()) == "0/metrics.jsonl cannot be read: Permission denied"
    assert reason(run.recipe()) == "0/recipe.json cannot be read: Permission denied"
    assert run.error() == "0/error.txt cannot be read: Permission denied"


def test_a_frozen_baseline_has_no_curves_because_nothing_was_trained(run: RunFiles) -> None:
    frozen = attrs.evolve(run, entry=attrs.evolve(run.entry, num_steps=0, losses=None))
    assert (reason(frozen.curves()), reason(frozen.chunks())) == ("nothing was trained",) * 2
