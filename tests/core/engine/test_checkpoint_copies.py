"""Checkpoints are copied in the background, complete or not at all, and copied back."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import fsspec
import pytest
from core.engine.toys import StoppingTracker, experiment
from loguru import logger

from aimcore import Engine, InvalidValue
from aimcore.engine import checkpoint_copies, train
from aimcore.engine.checkpoint_copies import CheckpointCopies, CopyUnreadable
from aimcore.io.atomic_files import CannotWrite
from aimcore.io.run_folder import MANIFEST_FILE, RunFolder, checkpoint_name

URL = "memory://copies"


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(checkpoint_copies, "_DELAYS", (0.0, 0.0))
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def checkpoint(run: Path, step: int) -> Path:
    """A folder with files like those of a checkpoint."""
    folder = RunFolder(run).checkpoint(step)
    folder.mkdir(parents=True)
    for name in ("a.pt", MANIFEST_FILE):
        (folder / name).write_text(f"{name} of {step}")
    return folder


def copied(run: str = "one") -> dict[str, bytes]:
    files = fsspec.filesystem("memory")
    return {path.partition(f"/copies/{run}/checkpoints/")[2]: files.cat_file(path) for path in files.find("/copies")}


def with_copies(**changes: Any) -> Any:
    engine = Engine(precision="fp32", num_threads=1, checkpoint_copies=URL, **changes)
    return experiment(engine=engine, num_steps=6, checkpoint_every=1)


def test_the_newest_copies_are_kept_with_their_manifests(tmp_path: Path) -> None:
    for step in (2, 4, 6):  # one at a time: each is copied
        with CheckpointCopies(URL, "one", keep=2) as copies:
            copies.add(checkpoint(tmp_path, step))
    names = [f"{checkpoint_name(step)}/{name}" for step in (4, 6) for name in ("a.pt", MANIFEST_FILE)]
    assert sorted(copied()) == sorted(names)
    assert copied()[f"{checkpoint_name(6)}/a.pt"] == b"a.pt of 6"


def test_a_complete_copy_is_never_written_again(tmp_path: Path) -> None:
    for text in ("first", "second"):
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        folder = checkpoint(tmp_path, 2)
        (folder / "a.pt").write_text(text)
        with CheckpointCopies(URL, "one", keep=2) as copies:
            copies.add(folder)
    assert copied()[f"{checkpoint_name(2)}/a.pt"] == b"first"


def test_what_is_being_copied_must_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    with CheckpointCopies(URL, "one", keep=2) as copies:
        monkeypatch.setattr(CheckpointCopies, "_prune", lambda self: held.append(list(self.held_steps)))
        copies.add(checkpoint(tmp_path, 2))
    assert held == [[2]]
    assert copies.held_steps == []


def test_a_store_that_fails_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    own, failures = CheckpointCopies._copy, iter([OSError("busy"), OSError("busy")])

    def failing(self: CheckpointCopies, folder: Path) -> None:
        for error in failures:
            raise error
        own(self, folder)

    monkeypatch.setattr(CheckpointCopies, "_copy", failing)
    with CheckpointCopies(URL, "one", keep=2) as copies:
        copies.add(checkpoint(tmp_path, 2))
    assert len(copied()) == 2
    assert warned == []


def test_a_store_that_stays_away_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "put_file", refusing)
    with CheckpointCopies(URL, "one", keep=2) as copies:
        copies.add(checkpoint(tmp_path, 2))
    assert len(warned) == 1
    assert "cannot be copied to memory://copies/one/checkpoints (PermissionError: no)" in warned[0]


def refusing(*_: object, **__: object) -> None:
    raise PermissionError("no")


def test_a_copy_of_other_size_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warned: list[str]
) -> None:
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "size", lambda *_: 1)
    with CheckpointCopies(URL, "one", keep=2) as copies:
        copies.add(checkpoint(tmp_path, 2))
    assert f"{checkpoint_name(2)}/{MANIFEST_FILE}" not in copied()
    assert "has 1 bytes instead of 9" in warned[0]


def test_a_run_whose_folder_is_lost_continues_from_its_copy(tmp_path: Path) -> None:
    whole = train(experiment(num_steps=6), tmp_path / "whole", progress=False)
    whole.engine.close()
    first = train(with_copies(), tmp_path / "first", progress=False)
    first.engine.close()
    assert max(copied("toy")) > checkpoint_name(6)
    for path in list(fsspec.filesystem("memory").find("/copies")):
        if checkpoint_name(6) in path:  # as if the machine had been lost before the last step
            fsspec.filesystem("memory").rm_file(path)
    second = train(with_copies(), tmp_path / "second", resume=True, progress=False)
    second.engine.close()
    assert second.num_steps == 6
    lines = (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 6
    newest, same = (RunFolder(tmp_path / name).final_checkpoint() for name in ("second", "whole"))
    assert newest is not None
    assert same is not None
    assert (newest / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["exists", "ls", "open"])
def test_a_store_that_cannot_be_read_back_is_an_error_that_says_what_to_do(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointCopies(URL, "toy", keep=2) as copies:
        copies.add(checkpoint(tmp_path / "copied", 2))
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), method, refusing)
    with pytest.raises(CopyUnreadable) as raised:
        train(with_copies(), tmp_path / "run", resume=True, progress=False)
    message = str(raised.value)
    assert message.startswith(
        f"{tmp_path}/run has no checkpoint, and the copies of its checkpoints at 'memory://copies/"
    )
    assert "cannot be read (PermissionError: no). Nothing was trained or changed" in message
    assert message.endswith("resume again, or set engine.checkpoint_copies to null to begin at step 0")
    assert RunFolder(tmp_path / "run").newest_checkpoint() is None


def copy_of_three_steps(folder: Path) -> None:
    """Train three steps; copies of the checkpoints of the last two are kept."""
    run = attrs.evolve(with_copies(), num_steps=3)
    for steps in (1, 2, 3):  # one checkpoint at a time: each is copied
        made = attrs.evolve(run, trackers=(StoppingTracker(step=steps - 1),))
        train(made, folder, resume=True, progress=False).engine.close()


def cut(step: int) -> str:
    """Cut the shard of a copy; return its name."""
    files = fsspec.filesystem("memory")
    path = next(each for each in files.find("/copies") if checkpoint_name(step) in each and each.endswith(".pt"))
    files.pipe_file(path, files.cat_file(path)[:100])
    return path.rpartition("/")[2]


def test_a_damaged_copy_is_left_out_and_if_all_are_damaged_the_error_names_them(
    tmp_path: Path, warned: list[str]
) -> None:
    copy_of_three_steps(tmp_path / "first")
    names = {3: cut(3)}
    result = train(attrs.evolve(with_copies(), num_steps=2), tmp_path / "second", resume=True, progress=False)
    result.engine.close()
    assert (result.num_steps, result.patches_per_second) == (2, None)
    assert any(f"is damaged (step_00000003: {names[3]} has 100 bytes instead of " in line for line in warned)
    names[2] = cut(2)
    with pytest.raises(CopyUnreadable) as raised:
        train(with_copies(), tmp_path / "third", resume=True, progress=False)
    for step, name in names.items():
        assert f"step_0000000{step}: {name} has 100 bytes instead of" in str(raised.value)
    assert not list((tmp_path / "third" / "checkpoints").glob("step_*"))


def test_a_full_disk_while_copying_back_is_not_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_of_three_steps(tmp_path / "first")
    copies = CheckpointCopies(URL, "toy", keep=2)

    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(CannotWrite, match=r"cannot write .*step_00000003.partial/.*No space left"):
            copies.restore(RunFolder(tmp_path / "run"))
    restored = copies.restore(RunFolder(tmp_path / "run"))
    assert restored == RunFolder(tmp_path / "run").checkpoint(3)


def test_the_number_of_checkpoints_is_a_setting(tmp_path: Path) -> None:
    engine = Engine(precision="fp32", num_threads=1, keep_checkpoints=3)
    result = train(experiment(engine=engine, num_steps=5, checkpoint_every=1), tmp_path, progress=False)
    result.engine.close()
    assert [path.name for path in RunFolder(tmp_path).complete_checkpoints()] == list(map(checkpoint_name, (5, 4, 3)))


def test_a_url_that_must_not_be_opened_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"checkpoint_copies.*reference"):
        Engine(checkpoint_copies="reference://x")
