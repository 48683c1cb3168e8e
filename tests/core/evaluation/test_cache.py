"""Features in zarr: written while images are read, found again, and never trusted when damaged."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import zarr
from torch import Generator, Tensor

from aimcore import InvalidValue
from aimcore.evaluation import FeatureCache, FeatureKind
from aimcore.evaluation import feature_cache as cache
from aimcore.evaluation import stored_features as stored
from aimcore.evaluation.feature_cache import CacheNotShared
from aimcore.evaluation.feature_tables import Rows
from aimcore.evaluation.stored_features import StoredTable
from aimcore.io.atomic_files import CannotWrite

DESCRIPTION: dict[str, Any] = {"trunk": {"width": 3}, "layers": [0, 1]}
KIND = FeatureKind("tokens", (0, 1))


def _features(numbers: Tensor) -> Tensor:
    """``[n, 4, 3]``; image 0 is all zeros."""
    return numbers[:, None, None] * torch.linspace(0.5, 2, 12).reshape(1, 4, 3)


def _write(where: FeatureCache, batches: list[list[int]], only: Tensor | None = None) -> StoredTable:
    writer = where.writer(DESCRIPTION, KIND, num_classes=5, only=only)
    for batch in batches:
        numbers = torch.tensor(batch, dtype=torch.int64)
        writer.add(Rows(_features(numbers), numbers % 5, numbers))
    return writer.finish()


def _read(table: StoredTable) -> tuple[Tensor, Tensor]:
    whole = table.stream().read()
    return whole.features, whole.labels


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples per chunk, three chunks at a time."""
    monkeypatch.setattr(cache, "CHUNK_BYTES", 2 * 48)
    monkeypatch.setattr(stored, "PIECE_BYTES", 3 * 2 * 48)


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
@pytest.mark.usefixtures("small_chunks")
def test_what_was_written_is_found_on_any_file_system(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}{tmp_path}/features/"
    _write(FeatureCache(url), [[0, 1, 2], [3], [4, 5, 6]])
    found = FeatureCache(url).find(DESCRIPTION)
    assert found is not None
    features, labels = _read(found)
    assert torch.equal(features, _features(torch.arange(7)))
    assert (labels.tolist(), found.num_classes) == ([0, 1, 2, 3, 4, 0, 1], 5)


def test_features_of_another_description_are_not_found(tmp_path: Path) -> None:
    where = FeatureCache(str(tmp_path))
    _write(where, [[0]])
    assert where.find({**DESCRIPTION, "layers": [0]}) is None


@pytest.mark.usefixtures("small_chunks")
def test_chunks_are_written_while_images_are_read(tmp_path: Path) -> None:
    where = FeatureCache(str(tmp_path))
    writer = where.writer(DESCRIPTION, KIND, num_classes=5, only=None)
    numbers = torch.arange(5)
    writer.add(Rows(_features(numbers), numbers % 5, numbers))
    chunks = Path(where.location(DESCRIPTION), "features", "c")
    assert sorted(chunk.name for chunk in chunks.iterdir()) == ["0", "1"]
    writer.finish()
    assert sorted(chunk.name for chunk in chunks.iterdir()) == ["0", "1", "2"]


def test_only_selected_samples_are_kept(tmp_path: Path) -> None:
    table = _write(FeatureCache(str(tmp_path)), [[0, 1, 2], [3, 4]], only=torch.tensor([1, 4]))
    assert table.numbers.tolist() == [1, 4]
    assert torch.equal(_read(table)[0], _features(torch.tensor([1, 4])))


def test_a_table_is_sorted_by_number_whatever_the_batches(tmp_path: Path) -> None:
    table = _write(FeatureCache(str(tmp_path)), [[3, 2], [0, 1]])
    assert (table.numbers.tolist(), table.labels.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3])
    picked = table.stream(torch.tensor([1, 2])).read()
    assert sorted(picked.labels.tolist()) == [1, 2]
    assert torch.equal(picked.features, _features(picked.labels))


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no image to take features of"):
        _write(FeatureCache(str(tmp_path)), [[]])


def test_features_that_were_not_finished_are_not_found(tmp_path: Path) -> None:
    where = FeatureCache(str(tmp_path))
    numbers = torch.arange(3)
    where.writer(DESCRIPTION, KIND, 5, None).add(Rows(_features(numbers), numbers, numbers))
    assert where.find(DESCRIPTION) is None


def test_beginning_to_write_removes_the_mark_of_completeness(tmp_path: Path) -> None:
    where = FeatureCache(str(tmp_path))
    _write(where, [[0, 1]])
    where.writer(DESCRIPTION, KIND, 5, None)
    assert where.find(DESCRIPTION) is None


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def _describe_otherwise(path: Path) -> None:
    zarr.open_group(str(path), mode="r+").attrs["description"] = {"trunk": "another"}


def _edit(**changes: Any) -> Callable[[Path], object]:
    """Change entries of a description."""

    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _attributes(**changes: Any) -> Callable[[Path], object]:
    return lambda path: zarr.open_group(str(path), mode="r+").attrs.update(changes)


def _grid(*shape: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BIG_ENDIAN = [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}]
UNCHECKED = [{"name": "bytes", "configuration": {"endian": "little"}}]

DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a chunk is missing": ("features/c/1/0/0", Path.unlink),
    "a chunk is empty": ("features/c/1/0/0", lambda path: path.write_bytes(b"")),
    "a chunk is cut short": ("features/c/1/0/0", lambda path: path.write_bytes(path.read_bytes()[:50])),
    "a bit is flipped": ("features/c/1/0/0", _flip),
    "a bit of the labels is flipped": ("labels/c/0", _flip),
    "the labels' chunk is missing": ("labels/c/0", Path.unlink),
    "an array is missing": ("numbers/zarr.json", Path.unlink),
    "an array's description is no JSON": ("features/zarr.json", lambda path: path.write_text("{")),
    "the group's description is no JSON": ("zarr.json", lambda path: path.write_text('{"zarr')),
    "the group's description is empty": ("zarr.json", lambda path: path.write_text("{}")),
    "the group is of something else": ("", _describe_otherwise),
    "labels of terabytes": ("labels/zarr.json", _edit(shape=[10**12], chunk_grid=_grid(10**12))),
    "more chunks than can be counted": ("labels/zarr.json", _edit(shape=[10**15], chunk_grid=_grid(1))),
    "a filling of 70 bits": ("numbers/zarr.json", _edit(fill_value=2**70)),
    "numbers the other way round": ("features/zarr.json", _edit(codecs=BIG_ENDIAN)),
    "no checksums": ("features/zarr.json", _edit(codecs=UNCHECKED)),
    "integers for features": ("features/zarr.json", _edit(data_type="int32", fill_value=0)),
    "features of part of a row": ("features/zarr.json", _edit(shape=[7, 4, True])),
    "labels by row and column": ("labels/zarr.json", _edit(shape=[7, 1], chunk_grid=_grid(7, 1))),
    "an array's description is a list": ("features/zarr.json", lambda path: path.write_text("[]")),
    "an array's description is deep": ("features/zarr.json", lambda path: path.write_text("[" * 10**5)),
    "an array's description is no text": ("features/zarr.json", lambda path: path.write_bytes(b"\xff\xfe")),
    "an array's description is a folder": ("features/zarr.json", _to_folder),
    "a chunk is a folder": ("features/c/1/0/0", _to_folder),
    "classes as text": ("", _attributes(num_classes="5")),
    "less than no classes": ("", _attributes(num_classes=-1)),
    "classes true": ("", _attributes(num_classes=True)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.usefixtures("small_chunks")
def test_damaged_features_are_not_found_and_can_be_written_anew(tmp_path: Path, damage: str) -> None:
    where = FeatureCache(str(tmp_path))
    _write(where, [list(range(7))])
    name, harm = DAMAGES[damage]
    harm(Path(where.location(DESCRIPTION), name))
    assert where.find(DESCRIPTION) is None
    assert torch.equal(_read(_write(where, [list(range(7))]))[0], _features(torch.arange(7)))


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("nosuch://bucket/features", "is refused: the protocol 'nosuch' is not allowed"),
        ("gs://bucket/features", "cannot be opened: .*nstall gcsfs"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_its_cause(url: str, cause: str) -> None:
    with pytest.raises(InvalidValue, match=f"cache_url: '{url}' {cause}"):
        FeatureCache(url)


def test_processes_that_do_not_share_the_cache_are_reported_so(tmp_path: Path) -> None:
    with pytest.raises(CacheNotShared, match="give a cache_url that all processes share"):
        FeatureCache(str(tmp_path)).reopen(DESCRIPTION)


@pytest.mark.usefixtures("small_chunks")
def test_a_stream_comes_in_pieces_and_gives_every_sample_once(tmp_path: Path) -> None:
    table = _write(FeatureCache(str(tmp_path)), [list(range(15))])
    stream = table.stream(torch.tensor([0, 3, 4, 7, 8, 11, 14]))
    # Chunks 0, 1, 2 | 3, 4, 5 | 7.
    assert [len(piece.labels) for piece in stream.pieces()] == [3, 3, 1]
    assert torch.equal(stream.read().features, _features(torch.tensor([0, 3, 4, 7, 8, 11, 14])))
    assert list(table.stream(torch.arange(0)).pieces()) == []


@pytest.mark.usefixtures("small_chunks")
def test_a_shuffled_stream_gives_every_sample_once_in_another_order_each_epoch(tmp_path: Path) -> None:
    stream = _write(FeatureCache(str(tmp_path)), [list(range(15))]).stream()
    generator = Generator().manual_seed(0)
    first, second = (torch.cat([piece.features for piece in stream.pieces(generator)])[:, 0, 0] for _ in range(2))
    # The first value of sample k is k / 2.
    assert sorted(first.tolist()) == sorted(second.tolist()) == [number / 2 for number in range(15)]
    assert first.tolist() != second.tolist() != sorted(second.tolist())


@pytest.mark.usefixtures("small_chunks")
def test_a_shuffled_piece_mixes_chunks_from_anywhere_and_their_rows(tmp_path: Path) -> None:
    stream = _write(FeatureCache(str(tmp_path)), [list(range(60))]).stream()
    piece = next(iter(stream.pieces(Generator().manual_seed(0))))
    numbers = (2 * piece.features[:, 0, 0]).long()
    chunks = numbers // 2
    assert (len(numbers), len(chunks.unique())) == (6, 3)
    assert torch.equal(piece.labels, numbers % 5)
    assert (chunks.diff() != 0).sum() > 2


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batches", [[], [[0, 1, 2]]], ids=["at the beginning", "at the end"])
def test_features_that_the_system_refuses_to_write_are_an_error_that_says_where(
    batches: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = FeatureCache(str(tmp_path))
    full = OSError(errno.ENOSPC, "No space left on device")
    if batches:
        monkeypatch.setattr(zarr.Array, "append", Mock(side_effect=full))
    else:
        monkeypatch.setattr(zarr, "open_group", Mock(side_effect=full))
    with pytest.raises(CannotWrite, match=rf"cannot write {tmp_path}/.*\.zarr: No space left on device .*free"):
        _write(where, batches)


def test_labels_and_numbers_take_no_more_space_than_they_need(tmp_path: Path) -> None:
    _write(FeatureCache(str(tmp_path)), [list(range(15))])
    sizes = {
        name: path.stat().st_size for name in ("labels", "numbers") for path in tmp_path.glob(f"*.zarr/{name}/c/0")
    }
    assert sizes == {"labels": 15 * 8 + 4, "numbers": 15 * 8 + 4}  # int64, and a checksum
