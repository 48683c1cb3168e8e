"""Images in Parquet files: columns, row groups, orders, damage."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shards import picture

from aimcore import InvalidValue, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore_sources import Parquet, parquet_files
from aimcore_sources.parquet_files import RowGroups


def write(path: Path, metadata: dict[str, Any] | None = None, group: int = 2, **columns: Any) -> str:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


def images(count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"bytes": picture(first + number), "path": f"{number}.png"} for number in range(count)]


def reds(source: Parquet) -> list[int]:
    opened = source.open()
    return [int(opened.read(index).image[0, 0, 0]) for index in range(len(opened))]


def test_structs_and_plain_bytes_are_read_row_by_row(tmp_path: Path) -> None:
    assert reds(Parquet(url=write(tmp_path / "a.parquet", image=images(5)))) == [0, 1, 2, 3, 4]
    plain = write(tmp_path / "b.parquet", jpg=[picture(7), picture(8)])
    assert reds(Parquet(url=plain, image="jpg")) == [7, 8]


def test_files_of_a_folder_or_pattern_follow_each_other_by_name(tmp_path: Path) -> None:
    write(tmp_path / "train-1.parquet", image=images(3, 10))
    write(tmp_path / "train-0.parquet", image=images(2))
    write(tmp_path / "test-0.parquet", image=images(1, 50))
    assert reds(Parquet(url=str(tmp_path))) == [50, 0, 1, 10, 11, 12]
    assert reds(Parquet(url=f"{tmp_path}/train-*.parquet")) == [0, 1, 10, 11, 12]
    opened = Parquet(url=f"{tmp_path}/train-{{0..1}}.parquet").open()
    assert [opened.read(index).identifier for index in (1, 4)] == ["train-0.parquet#1", "train-1.parquet#2"]


def test_names_of_classes_are_those_of_the_file(tmp_path: Path) -> None:
    metadata = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    opened = Parquet(url=write(tmp_path / "a.parquet", metadata, image=images(3), label=[1, 0, -1])).open()
    assert (opened.class_names, [opened.label(index) for index in range(3)]) == (("cat", "dog"), [1, 0, None])


def test_labels_may_be_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=images(3), kind=["b", "a", None])
    opened = Parquet(url=path, label="kind").open()
    known = opened.known_labels()
    assert known is not None
    assert (opened.class_names, known.tolist()) == (("a", "b"), [1, 0, -1])


def test_captions_are_text_lists_or_kinds(tmp_path: Path) -> None:
    structs = [[{"kind": "alt", "text": "x"}, {"kind": "long", "text": "y"}, {"kind": "alt", "text": "z"}], None]
    path = write(tmp_path / "a.parquet", image=images(2), text=["one", " "], many=[["a", "b"], []], captions=structs)
    kinds = {"text": "text", "many": "many", "alt": "captions#alt"}
    opened = Parquet(url=path, captions=kinds).open()
    assert opened.read(0).captions == {"text": ("one",), "many": ("a", "b"), "alt": ("x", "z")}
    assert opened.read(1).captions == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "picture"}, r"image: .*no column 'picture'; its columns are 'image', 'label'"),
        ({"captions": {"alt": "text"}}, "no column 'text'"),
        ({"label": "class"}, "no column 'class'"),
        ({"class_names": ("a", "b")}, r"label: the column 'label' must have one of \['a', 'b'\].*got '2'"),
        ({"window": 0}, "window: must be"),
    ],
)
def test_wrong_columns_are_errors_that_name_those_there_are(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.parquet", image=images(2), label=[0, 2])
    with pytest.raises(InvalidValue, match=message):
        Parquet(url=path, **fields).open()


def test_every_epoch_has_every_row_once_and_windows_bound_the_row_groups(tmp_path: Path) -> None:
    for number, count in enumerate((5, 4, 7)):  # row groups of 2, 2, 1; 2, 2; 2, 2, 2, 1 rows
        write(tmp_path / f"{number}.parquet", image=images(count))
    opened = Parquet(url=str(tmp_path), window=3).open()
    group_of = np.repeat(np.arange(9), [2, 2, 1, 2, 2, 2, 2, 2, 1])
    order = opened.indices_of(np.arange(48), seed=3).reshape(3, 16)
    assert all(sorted(epoch) == list(range(16)) for epoch in order.tolist())
    assert len({tuple(epoch) for epoch in order.tolist()}) == 3
    for epoch in order:
        groups, seen = [group_of[index] for index in epoch], []
        for group in groups:
            if group not in seen:
                seen.append(group)
        windows = [set(seen[start : start + 3]) for start in range(0, 9, 3)]
        which = [next(number for number, window in enumerate(windows) if group in window) for group in groups]
        assert which == sorted(which)
    one_by_one = [int(opened.indices_of(np.array([number]), seed=3)[0]) for number in range(48)]
    assert one_by_one == order.flatten().tolist()


def test_training_reads_each_row_group_once_per_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Parquet(url=write(tmp_path / "a.parquet", image=images(12)), window=2).open()
    read: list[int] = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, number, **how: read.append(number) or original(self, number, **how),
    )
    for index in opened.indices_of(np.arange(12), seed=0):
        opened.read(int(index))
    assert sorted(read) == [0, 1, 2, 3, 4, 5]


def test_it_can_be_sent_to_workers_without_the_row_groups_in_memory(tmp_path: Path) -> None:
    opened = Parquet(url=write(tmp_path / "a.parquet", image=images(300), label=[0] * 300, group=300)).open()
    before = len(pickle.dumps(opened))
    opened.read(0)
    assert len(pickle.dumps(opened)) == before
    assert pickle.loads(pickle.dumps(opened)).read(7).image[0, 0, 0] == 7


def test_a_row_without_bytes_names_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", image=[{"bytes": None, "path": "x/1.png"}, {"bytes": picture(), "path": None}])
    with pytest.raises(UnreadableSample, match=r"a\.parquet#0: it has no image, only the path 'x/1.png': store"):
        Parquet(url=path).open().read(0)


def test_a_decompression_bomb_is_refused_by_its_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")  # 400 million pixels in some kilobytes
    path = write(tmp_path / "a.parquet", image=[buffer.getvalue()])
    with pytest.raises(UnreadableSample, match=r"a\.parquet#0: DecompressionBombError"):
        Parquet(url=path).open().read(0)
    with pytest.raises(UnreadableSample, match=r"a\.parquet#0.*6 x 4 px are more than 23 pixels \(max_pixels\)"):
        Parquet(url=write(tmp_path / "a.parquet", image=[picture()]), max_pixels=23).open().read(0)


def test_a_row_group_that_is_too_large_is_refused_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "LARGEST_GROUP", 100)
    with pytest.raises(DataNotFound, match=r"row group 0 of .*a\.parquet has .* smaller row groups"):
        Parquet(url=write(tmp_path / "a.parquet", image=images(5))).open()


def test_damage_within_a_row_group_makes_its_rows_unreadable(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.parquet", image=[bytes(range(256)) * 40, picture()], group=1))
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the header of the first page
    path.write_bytes(content)
    opened = Parquet(url=str(path)).open()
    with pytest.raises(UnreadableSample, match=r"a\.parquet#0"):
        opened.read(0)
    assert opened.read(1).image.shape == (3, 4, 6)


def test_a_file_of_another_kind_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(DataNotFound, match=r"a\.parquet cannot be read"):
        Parquet(url=str(tmp_path / "a.parquet")).open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataNotFound, match=r"no \*\.parquet in"):
        Parquet(url=str(tmp_path / "empty")).open()
    with pytest.raises(DataNotFound, match="has no rows"):
        Parquet(url=write(tmp_path / "b.parquet", image=pa.array([], pa.binary()))).open()


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", image=images(1), label=[0])
    write(tmp_path / "1.parquet", image=images(1))
    with pytest.raises(InvalidValue, match=r"1\.parquet lacks columns that .*0\.parquet has"):
        RowGroups([str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")], "image", ["label"], {"label"})
