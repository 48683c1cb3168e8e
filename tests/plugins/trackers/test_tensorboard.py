"""The TensorBoard tracker, read back by hand and by TensorBoard itself."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("tensorboardX", reason="needs the extra: pip install 'aimcore[tensorboard]'")

from aimcore.io.atomic_files import CannotWrite
from aimcore_trackers.tensorboard import TensorBoard

RECIPE = {"schema_version": 1, "experiment": {"name": "raster"}}


def run_of(tracker: TensorBoard, folder: Path, steps: range, *, scale: float = 1.0) -> None:
    run = tracker.open(str(folder), RECIPE, steps.start)
    for step in steps:
        run.log(step, {"loss/next_patch": scale * step, "lr": 0.5})
    run.close("finished")


def events(folder: Path) -> Iterator[Any]:
    """Every event of a folder: records of length (8 bytes), its checksum (4), content and its checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            yield Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, value.simple_value) for event in events(folder) for value in event.summary.value
            if value.tag == tag]  # fmt: skip


def test_every_metric_is_a_curve_in_the_runs_folder(tmp_path: Path) -> None:
    run_of(TensorBoard(), tmp_path / "raster", range(3))
    assert points(tmp_path / "raster" / "tensorboard", "loss/next_patch") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert points(tmp_path / "raster" / "tensorboard", "lr") == [(0, 0.5), (1, 0.5), (2, 0.5)]


def test_the_recipe_stands_beside_the_curves(tmp_path: Path) -> None:
    run_of(TensorBoard(), tmp_path, range(1))
    texts = [value.tensor.string_val for event in events(tmp_path / "tensorboard") for value in event.summary.value
             if value.tag.startswith("recipe")]  # fmt: skip
    assert [b'"name": "raster"' in text[0] for text in texts] == [True]


def test_a_folder_for_all_runs_has_one_for_each(tmp_path: Path) -> None:
    run_of(TensorBoard(log_dir=f"{tmp_path}/all/{{run}}"), tmp_path / "raster", range(1))
    assert points(tmp_path / "all" / "raster", "lr") == [(0, 0.5)]


def test_resuming_tells_where_to_purge_from_and_keeps_the_earlier_file(tmp_path: Path) -> None:
    for steps in (range(5), range(3, 6)):
        run_of(TensorBoard(), tmp_path, steps)
    starts = [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
    assert starts == [0, 3]
    assert [step for step, _ in points(tmp_path / "tensorboard", "lr")] == [0, 1, 2, 3, 4, 3, 4, 5]


def test_tensorboard_shows_a_resumed_run_as_one_curve(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard: pip install tensorboard"
    )
    run_of(TensorBoard(), tmp_path, range(5))
    run_of(TensorBoard(), tmp_path, range(3, 6), scale=10.0)
    shown = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    found = [(event.step, event.value) for event in shown.Scalars("loss/next_patch")]
    assert found == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_a_full_disk_is_an_error_and_nothing_waits_for_the_writer_that_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    run = TensorBoard(flush_seconds=1).open(str(tmp_path), {}, 0)
    events = run._writer.file_writer.event_writer
    monkeypatch.setattr(events._ev_writer, "write_event", Mock(side_effect=OSError(28, "No space left on device")))
    run._writer.add_scalar("lost", 1.0, 0)
    events._worker.join(timeout=60)
    for act in (lambda: run.log(1, {"loss": 1.0}), run.sync, lambda: run.close("failed")):
        with pytest.raises(CannotWrite, match=r"cannot write .*tensorboard: tensorboardX stopped after an error"):
            act()
