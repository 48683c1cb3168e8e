"""Files that are written completely or not at all."""

import errno
import os
import pickle
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from processes import run_to_end

from aimcore.io import atomic_files as files
from aimcore.io.atomic_files import (
    CannotWrite,
    free_space,
    make_folder,
    remove_partial,
    replacing,
    sha256_of,
    write_atomically,
    writing,
)


def _fail_after(*_: object) -> None:
    raise RecursionError


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sync of a file says that the disk is full."""
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def test_text_and_bytes_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "grün\n")
    assert path.read_bytes() == b"gr\xc3\xbcn\n"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CannotWrite) as raised:
        write_atomically(path, "new", safe="The last checkpoint is step 3")
    assert str(raised.value) == (
        f"cannot write {path}: No space left on device ({free_space(path)}); free some space, or choose another "
        "folder. The last checkpoint is step 3"
    )
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_block_that_fails_leaves_the_old_file_and_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RecursionError), replacing(path) as partial:
        _fail_after(partial.write_text("new"))
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CannotWrite, match=r"cannot write .*; a part of the path is a file, not a folder"):
            make_folder(path)
    with pytest.raises(CannotWrite, match=r"File name too long .*choose a shorter name"):
        make_folder(tmp_path / ("n" * 256))


def test_a_folder_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="the folder does not exist, or was removed in the meantime"):
        write_atomically(tmp_path / "gone" / "file", "text")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [".file.12.partial", ".file.partial", "file.12.partial", ".file.12.partial.txt", "step_00000002.partial"]
    for name in names:
        (tmp_path / name).write_text("")
    with replacing(tmp_path / "file") as partial:
        partial.write_text("whole")
    partial.write_text("half")  # as if the process had been killed there
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", *names[1:]])


def test_errors_that_are_not_the_systems_pass_unchanged() -> None:
    with pytest.raises(RecursionError), writing("file"):
        _fail_after()


def test_the_error_survives_the_way_to_another_process() -> None:
    error = CannotWrite.because("file", OSError(errno.EROFS, "read-only"))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.path) == (CannotWrite, str(error), "file")


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {str(tmp_path): (4096, 366_210_938, 10), "/dev/full": (1, 999, 10), "/no/inodes": (4096, 5, 0)}

    def statvfs(path: os.PathLike[str]) -> os.statvfs_result:
        if str(path) not in known:
            raise FileNotFoundError
        size, free, entries = known[str(path)]
        return os.statvfs_result((size, size, 0, free, free, 10, entries, entries, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    # 366210938 * 4096 bytes
    assert free_space(tmp_path / "not" / "there") == "1.5 TB free"
    assert free_space("/dev/full") == "999 bytes free"
    assert free_space("/no/inodes") == "no file entries (inodes) free"


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_are_written_without_torch() -> None:
    code = "import sys; import aimcore.io.atomic_files; sys.exit('torch' in sys.modules)"
    assert run_to_end([sys.executable, "-c", code]).returncode == 0


def test_a_refused_url_is_named_without_the_space_of_this_machine() -> None:
    error = CannotWrite.because("s3://bucket/features", OSError(errno.EACCES, "denied"))
    assert str(error).startswith("cannot write s3://bucket/features: Permission denied; change the permissions")


def test_a_file_that_cannot_be_made_is_refused_before_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.require_writable(tmp_path / "new" / "k.safetensors")
    assert list((tmp_path / "new").iterdir()) == []

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "TemporaryFile", refuse)
    with pytest.raises(CannotWrite, match=r"new/k.safetensors: Read-only file system .*; choose a folder on"):
        files.require_writable(tmp_path / "new" / "k.safetensors")
