"""Conversions between layouts: what is kept, interruptions, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from shards import picture

from aimcore import InvalidValue, Source
from aimcore.contracts.errors import TooManyUnreadable
from aimcore.io.atomic_files import FileExists
from aimcore.run import command
from aimcore.running.converting import CannotConvert, _Parts, convert
from aimcore.running.image_sources import destination_named, source_named
from aimcore_sources import BundledFashionMNIST, CaptionedFolder

DESTINATIONS = ("out/d-*.tar", "out/d-*.parquet", "out/d.zarr", "out/pictures", "out/one.tar", "out/one.parquet")


@pytest.fixture
def source(tmp_path: Path) -> CaptionedFolder:
    """Seven captioned images of two classes; file 3 is broken."""
    folder, lines = tmp_path / "in", list[str]()
    folder.mkdir()
    for number in range(7):
        ending = ("png", "jpg", "bmp")[number % 3]
        content = picture(30 * number, {"png": "PNG", "jpg": "JPEG", "bmp": "BMP"}[ending])
        (folder / f"{number}.{ending}").write_bytes(b"broken" if number == 3 else content)
        captions = {"alt": [f"caption {number}"], "long": ["a", "b"]} if number else {"alt": "first"}
        lines.append(json.dumps({"file": f"{number}.{ending}", "captions": captions, "label": "ba"[number % 2]}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return CaptionedFolder(url=str(folder))


def content_of(source: Source) -> list[tuple[object, ...]]:
    opened = source.open()
    samples = [opened.read(index) for index in range(len(opened))]
    return [
        (one.image.tolist(), dict(one.captions), opened.class_names[one.label or 0], opened.label(index))
        for index, one in enumerate(samples)
    ]


def expected_of(source: Source) -> list[tuple[object, ...]]:
    opened = source.open()
    samples = [opened.read(index) for index in range(len(opened)) if index != 3]
    return [(one.image.tolist(), dict(one.captions), opened.class_names[one.label or 0], one.label) for one in samples]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", DESTINATIONS)
def test_pixels_labels_and_captions_are_kept(name: str, source: CaptionedFolder, tmp_path: Path) -> None:
    done = convert(source, destination_named(f"{tmp_path}/{name}"), per_part=2)
    written, expected = content_of(done.source), expected_of(source)
    # A folder lists samples in their order; the label numbers of classes are those of sorted names everywhere.
    assert written == expected
    assert (done.num_samples, done.num_unreadable) == (6, 1)
    assert "3.png" in done.unreadable[0]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("between", ["a.zarr", "a-*.parquet", "a-*.tar"])
def test_files_of_images_are_copied_byte_for_byte(between: str, source: CaptionedFolder, tmp_path: Path) -> None:
    first = convert(source, destination_named(f"{tmp_path}/x/{between}"), per_part=4)
    opened, before = first.source.open(), source.open()
    for index, old in enumerate((0, 1, 2, 4, 5, 6)):
        content = opened.read_with_file(index)[1]
        if between != "a.zarr" and old % 3 != 2:  # BMP becomes PNG
            assert content == before.read_with_file(old)[1]


@pytest.mark.parametrize("name", ["out/d-*.tar", "out/d-*.parquet", "out/d.zarr", "out/pictures"])
def test_after_an_interruption_the_result_has_equal_bytes(
    name: str, source: CaptionedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, destination_named(f"{tmp_path}/whole/{name}"), per_part=2)
    original, calls = _Parts.__getitem__, list[int]()

    def dies(self: _Parts, number: int) -> object:
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, number)

    monkeypatch.setattr(_Parts, "__getitem__", dies)
    destination = destination_named(f"{tmp_path}/resumed/{name}")
    with pytest.raises(KeyboardInterrupt):
        convert(source, destination, per_part=2)
    assert not [path for path in (tmp_path / "resumed" / "out").iterdir() if not path.name.startswith(".")]
    [work] = (tmp_path / "resumed" / "out").iterdir()
    (work / "out" / ".d-00002.tar.123.partial").write_bytes(b"what a killed worker leaves")
    convert(source, destination, per_part=2)
    assert sorted(calls) == [0, 1, 2, 2, 3]  # only what has no record is repeated
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")


def test_other_settings_do_not_continue_a_conversion(
    source: CaptionedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> object:
        raise KeyboardInterrupt

    destination = destination_named(f"{tmp_path}/d-*.tar")
    monkeypatch.setattr(_Parts, "__getitem__", dies)
    with pytest.raises(KeyboardInterrupt):
        convert(source, destination, per_part=2)
    with pytest.raises(CannotConvert, match="unfinished conversion with another --shard"):
        convert(source, destination, per_part=3)


@pytest.mark.parametrize("name", DESTINATIONS)
def test_nothing_is_overwritten(name: str, source: CaptionedFolder, tmp_path: Path) -> None:
    destination = destination_named(f"{tmp_path}/{name}")
    convert(source, destination, per_part=2)
    before = files_of(tmp_path / "out")
    with pytest.raises(FileExists, match="nothing is overwritten"):
        convert(source, destination, per_part=2)
    assert files_of(tmp_path / "out") == before


def test_more_unreadable_samples_than_allowed_end_it_and_a_higher_limit_continues(
    source: CaptionedFolder, tmp_path: Path
) -> None:
    destination = destination_named(f"{tmp_path}/d.zarr")
    with pytest.raises(TooManyUnreadable, match=r"1 samples could not be read.*max-unreadable = 0.*3\.png"):
        convert(source, destination, max_unreadable=0)
    assert convert(source, destination, max_unreadable=1).num_samples == 6


def test_chosen_samples_are_written_in_their_order(tmp_path: Path) -> None:
    source, chosen = BundledFashionMNIST(split="test"), np.array([5, 2, 9])
    done = convert(source, destination_named(f"{tmp_path}/d-*.parquet"), indices_n=chosen, per_part=2).source.open()
    before = source.open()
    assert all(done.read(place).image.equal(before.read(int(index)).image) for place, index in enumerate(chosen))
    assert done.class_names == before.class_names


def test_samples_that_are_partly_labelled_need_another_layout(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [picture(), picture(1)], "label": [0, None]}), tmp_path / "a.parquet")
    source = source_named(str(tmp_path / "a.parquet"))
    with pytest.raises(InvalidValue, match=r"1 of 2 samples have no label.*\*\.zarr"):
        convert(source, destination_named(f"{tmp_path}/d.tar"))
    opened = convert(source, destination_named(f"{tmp_path}/d.zarr")).source.open()
    assert [opened.label(0), opened.label(1)] == [0, None]


@pytest.mark.parametrize(
    ("destination", "message"),
    [("memory://a.zarr", "must be on a local disk"), ("a-*/d-*.tar", r"one \* in its last part"), ("x*y", "without")],
)
def test_places_that_cannot_be_written_are_refused(destination: str, message: str, source: CaptionedFolder) -> None:
    with pytest.raises(InvalidValue, match=message):
        convert(source, destination_named(destination))


def test_a_source_that_cannot_be_written_is_refused(source: CaptionedFolder) -> None:
    with pytest.raises(CannotConvert, match="bundled_fashion_mnist cannot be written: give a folder"):
        convert(source, BundledFashionMNIST())


def test_the_command_prints_the_source_of_what_it_wrote(
    source: CaptionedFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["data", "convert", source.url, f"{tmp_path}/d-*.tar", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["num_unreadable"] == 1
    assert content_of(source_named(json.dumps(printed["source"]))) == expected_of(source)
    assert command(["data", "convert", source.url, f"{tmp_path}/d-*.tar"]) == 2


def test_labels_that_the_named_shards_do_not_read_are_not_lost_in_silence(
    source: CaptionedFolder, tmp_path: Path
) -> None:
    written = convert(source, destination_named(f"{tmp_path}/d.tar")).source
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    try:
        convert(written, destination_named(f"{tmp_path}/whole.zarr"))
        assert lines == []
        convert(source_named(f"{tmp_path}/d.tar"), destination_named(f"{tmp_path}/images.zarr"))
    finally:
        logger.remove(sink)
    (line,) = lines
    assert "webdataset does not read 6 members of other kinds (.json), so they are not written" in line


@pytest.mark.parametrize(
    ("source", "destination"),
    [("in", "in/out.zarr"), ("in", "in/sub/train-*.tar"), ("out/*.tar", "out/new-*.tar"), ("in", "link/out.zarr")],
)
def test_a_destination_that_the_source_would_read_is_refused(source: str, destination: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(1))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    read = source_named(json.dumps({"name": "flipped", "source": {"name": source_named(str(tmp_path / "in")).name,
                                                                  "url": str(tmp_path / source)}})
                        if source == "in" else str(tmp_path / source))  # fmt: skip
    with pytest.raises(InvalidValue, match="would be read as a part of the source"):
        convert(read, destination_named(str(tmp_path / destination)))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


def test_a_destination_next_to_what_the_source_reads_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(1))
    convert(source_named(str(tmp_path / "in")), destination_named(str(tmp_path / "a-*.tar")))
    convert(source_named(str(tmp_path / "a-*.tar")), destination_named(str(tmp_path / "b-*.tar")))
    assert (tmp_path / "b-00000.tar").is_file()


@pytest.mark.parametrize("name", ["d.zarr", "d-*.tar", "d-*.parquet", "d"])
def test_a_remote_destination_is_refused_without_its_library(name: str) -> None:
    with pytest.raises(InvalidValue, match="must be on a local disk"):
        convert(BundledFashionMNIST(split="test"), destination_named(f"s3://bucket/{name}"))
