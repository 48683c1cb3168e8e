"""Images in zarr groups: written from any source, read back sample by sample, and never read when damaged."""

from __future__ import annotations

import json
import pickle
import random
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from aimcore import InvalidValue, OpenSource, Sample, UnreadableSample
from aimcore.contracts.errors import DataNotFound, TooManyUnreadable
from aimcore_sources import BundledEmoji, BundledFashionMNIST, ZarrImages, write_zarr, zarr_layout, zarr_writing
from aimcore_sources.zarr_writing import PlaceTaken


class Few(OpenSource):
    """Images of given shapes, captioned; some cannot be read."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], broken: Sequence[int] = (), labelled: bool = True) -> None:
        self.shapes, self.broken, self.labelled = shapes, broken, labelled
        self.class_names = ("even", "odd") if labelled else ()

    def __len__(self) -> int:
        return len(self.shapes)

    def read(self, index: int) -> Sample:
        if index in self.broken:
            raise UnreadableSample(f"few/{index}", "broken")
        generator = torch.Generator().manual_seed(index)
        return Sample(
            image=torch.randint(0, 256, self.shapes[index], dtype=torch.uint8, generator=generator),
            identifier=f"few/{index}",
            captions={"alt": (f"number {index}", "läßt – 数 \n"), "synthetic": ()} if index != 2 else {},
            label=index % 2 if self.labelled else None,
        )


RAGGED = Few([(3, 5, 7), (3, 9, 2), (1, 4, 4), (3, 64, 64), (3, 1, 1)])


def opened(url: Path | str) -> OpenSource:
    return ZarrImages(url=str(url)).open()


def same(one: Sample, other: Sample) -> bool:
    return torch.equal(one.image, other.image) and (one.identifier, one.captions, one.label) == (
        other.identifier,
        other.captions,
        other.label,
    )


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_writing, "_SMALLEST_CHUNK", 64)
    monkeypatch.setattr(zarr_writing, "_LARGEST_CHUNK", 64)
    monkeypatch.setattr(zarr_writing, "CHUNKS_PER_SHARD", 2)


def test_images_of_any_sizes_come_back_with_all_that_is_known(tmp_path: Path) -> None:
    assert write_zarr(str(tmp_path / "few.zarr"), RAGGED) == 5
    found = opened(tmp_path / "few.zarr")
    assert all(same(found.read(index), RAGGED.read(index)) for index in range(len(RAGGED)))
    assert (len(found), found.class_names, found.label(3)) == (5, ("even", "odd"), 1)


@pytest.mark.usefixtures("small_shards")
def test_samples_lie_across_chunks_and_shards(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    found = opened(tmp_path / "few.zarr")
    assert all(same(found.read(index), RAGGED.read(index)) for index in (3, 0, 4, 2, 1))
    assert len(list((tmp_path / "few.zarr" / "samples" / "c").iterdir())) > 90


def test_the_bundled_source_comes_back_from_an_object_store() -> None:
    source = BundledFashionMNIST(split="test").open()
    write_zarr("memory://zarr/test.zarr", source)
    found = opened("memory://zarr/test.zarr")
    assert (len(found), found.class_names) == (3000, source.class_names)
    assert all(same(found.read(index), source.read(index)) for index in (0, 1500, 2999))


def test_every_caption_of_every_sample_comes_back() -> None:
    source = BundledEmoji(split="test").open()
    write_zarr("memory://zarr/emoji.zarr", source)
    found = opened("memory://zarr/emoji.zarr")
    assert all(same(found.read(index), source.read(index)) for index in range(len(source)))
    assert {kind for index in range(len(found)) for kind in found.read(index).captions} == {"name", "short"}


def test_it_travels_to_data_workers(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    arrived: OpenSource = pickle.loads(pickle.dumps(opened(tmp_path / "few.zarr")))
    assert same(arrived.read(2), RAGGED.read(2))


def test_images_without_labels_stay_without(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), Few([(3, 2, 2)], labelled=False))
    assert opened(tmp_path / "few.zarr").label(0) is None
    assert opened(tmp_path / "few.zarr").read(0).label is None


def test_a_source_without_samples_makes_an_empty_group(tmp_path: Path) -> None:
    assert write_zarr(str(tmp_path / "none.zarr"), Few([])) == 0
    assert len(opened(tmp_path / "none.zarr")) == 0


def test_samples_that_cannot_be_read_are_left_out_within_a_limit(tmp_path: Path) -> None:
    some = Few([(3, 2, 2)] * 4, broken=(1, 2))
    assert write_zarr(str(tmp_path / "few.zarr"), some, max_unreadable=2) == 2
    assert opened(tmp_path / "few.zarr").read(1).identifier == "few/3"
    with pytest.raises(TooManyUnreadable, match=r"more than max_unreadable = 1 allows; the last: cannot read few/2"):
        write_zarr(str(tmp_path / "fewer.zarr"), some, max_unreadable=1)


def test_what_was_not_completed_is_not_read_and_is_written_again(tmp_path: Path) -> None:
    with pytest.raises(TooManyUnreadable):
        write_zarr(str(tmp_path / "few.zarr"), Few([(3, 2, 2)] * 2, broken=(1,)), max_unreadable=0)
    with pytest.raises(DataNotFound, match="was never completed: write it again"):
        opened(tmp_path / "few.zarr")
    assert write_zarr(str(tmp_path / "few.zarr"), RAGGED) == len(opened(tmp_path / "few.zarr"))


def test_samples_are_replaced_on_demand_only(tmp_path: Path) -> None:
    url = str(tmp_path / "few.zarr")
    write_zarr(url, RAGGED)
    with pytest.raises(PlaceTaken, match=r"has samples already: .*overwrite=True"):
        write_zarr(url, RAGGED)
    assert write_zarr(url, Few([(3, 2, 2)]), overwrite=True) == len(opened(url)) == 1


def test_nothing_else_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    for place in (tmp_path, tmp_path / "other.zarr", tmp_path / "thesis.txt"):
        with pytest.raises(PlaceTaken, match="has other content than samples, which is never replaced"):
            write_zarr(str(place), RAGGED, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def shard_of(folder: Path) -> Path:
    return next(path for path in (folder / "samples" / "c").rglob("*") if path.is_file())


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-10])


def change(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[20] ^= 255
    shard.write_bytes(content)


@pytest.mark.usefixtures("small_shards")
def test_a_lost_shard_of_samples_is_an_error_at_open_that_names_it(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    found = opened(tmp_path / "few.zarr")
    shards = tmp_path / "few.zarr" / "samples" / "c"
    number = len(list(shards.iterdir()))
    for shard in ("0", "3"):
        (shards / shard).unlink()
    with pytest.raises(DataNotFound, match=rf"2 of {number} shards of the array 'samples' are lost: c/0, c/3\."):
        opened(tmp_path / "few.zarr")
    with pytest.raises(UnreadableSample, match=r"few\.zarr#0: "):
        found.read(0)


class Black(Few):
    """Black pictures of the first class: zarr would leave out their chunks."""

    def read(self, index: int) -> Sample:
        return Sample(image=torch.zeros(self.shapes[index], dtype=torch.uint8), identifier="", label=0)


@pytest.mark.usefixtures("small_shards")
def test_chunks_of_zeros_are_written_and_none_is_missed(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "black.zarr"), Black([(3, 32, 32), (3, 16, 16)]))
    found = opened(tmp_path / "black.zarr")
    assert (found.label(1), int(found.read(0).image.max()), dict(found.left_out)) == (0, 0, {})
    assert (tmp_path / "black.zarr" / "labels" / "c" / "0").is_file()


@pytest.mark.parametrize("array", ["labels", "shapes", "ends", "checksums"])
def test_a_lost_chunk_of_labels_or_places_is_an_error_never_zeros(tmp_path: Path, array: str) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    next(path for path in (tmp_path / "few.zarr" / array / "c").rglob("0") if path.is_file()).unlink()
    with pytest.raises(DataNotFound, match=r"is damaged, .*(are not those that were written|do not match each other)"):
        opened(tmp_path / "few.zarr")


def test_changed_labels_and_names_of_classes_are_an_error(tmp_path: Path) -> None:
    for number, change_group in enumerate((lambda g: g["labels"].__setitem__(1, 0), lambda g: g.attrs.put(
        dict(g.attrs) | {"class_names": ["odd", "even"]}
    ))):  # fmt: skip
        url = str(tmp_path / f"{number}.zarr")
        write_zarr(url, RAGGED)
        change_group(zarr.open_group(url, mode="r+"))
        with pytest.raises(DataNotFound, match="its labels, or what finds its samples, are not those"):
            opened(url)


def as_written_before(url: str) -> None:
    """Make the group one of an earlier version, which had no digest."""
    group = zarr.open_group(url, mode="r+")
    group.attrs.put({key: value for key, value in group.attrs.items() if key not in ("digest", "left_out")})


def test_a_group_of_an_earlier_version_is_read_and_its_missing_chunks_are_counted(tmp_path: Path) -> None:
    url = str(tmp_path / "few.zarr")
    write_zarr(url, RAGGED)
    as_written_before(url)
    found = opened(url)
    assert all(same(found.read(index), RAGGED.read(index)) for index in range(len(RAGGED)))
    assert found.left_out == {}
    (tmp_path / "few.zarr" / "labels" / "c" / "0").unlink()
    assert opened(url).left_out == {"chunks of 'labels' that are missing and read as zeros": 1}


def written_channels_first(url: str, samples: OpenSource) -> None:
    """Write a group as earlier versions did: pixels ``[C, H, W]``, byte by byte by hand."""
    group, content, rows = zarr.open_group(url, mode="w"), b"", list[tuple[int, list[int], int, int]]()
    for index in range(len(samples)):
        sample = samples.read(index)
        record = {"identifier": sample.identifier, "captions": {k: list(v) for k, v in sample.captions.items()}}
        one = sample.image.numpy().tobytes("C") + json.dumps(record).encode()
        content += one
        rows.append((len(content), list(sample.image.shape), zlib.crc32(one), index % 2))
    ends, shapes, checksums, labels = zip(*rows, strict=True)
    arrays = {
        "samples": np.frombuffer(content, dtype=np.uint8),
        "ends": np.array(ends, dtype=np.int64),
        "shapes": np.array(shapes, dtype=np.int32),
        "checksums": np.array(checksums, dtype=np.uint32),
        "labels": np.array(labels, dtype=np.int64),
    }
    for name, values in arrays.items():
        group.create_array(name, data=values)
    group.attrs.update({"format": "aimcore images 1", "class_names": list(samples.class_names), "complete": True})


def test_pixels_of_an_earlier_version_are_channel_by_channel_and_samples_are_equal(tmp_path: Path) -> None:
    urls = [str(tmp_path / name) for name in ("old.zarr", "new.zarr")]
    written_channels_first(urls[0], RAGGED)
    write_zarr(urls[1], RAGGED)
    old, new = map(opened, urls)
    for index in range(len(RAGGED)):
        assert same(old.read(index), RAGGED.read(index))
        assert same(new.read(index), RAGGED.read(index))
    copied = pickle.loads(pickle.dumps(old))
    assert same(copied.read(1), RAGGED.read(1))
    write_zarr(urls[0], RAGGED, overwrite=True)
    assert zarr.open_group(urls[0], mode="r").attrs["format"] == "aimcore images 2"
    assert same(opened(urls[0]).read(1), RAGGED.read(1))


def test_channels_are_next_to_each_other_in_the_group_and_in_memory(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    samples = zarr.open_group(str(tmp_path / "few.zarr"), mode="r")["samples"]
    image_CHW = RAGGED.read(0).image
    assert isinstance(samples, zarr.Array)
    assert bytes(np.asarray(samples[:6])) == bytes(image_CHW[:, 0, :2].T.flatten().tolist())
    assert opened(tmp_path / "few.zarr").read(0).image.stride() == (1, 21, 3)


def test_only_images_that_shrink_are_compressed(tmp_path: Path) -> None:
    flat = Few([(3, 64, 64)])
    flat.read = lambda _: Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), "zeros")  # type: ignore[method-assign]
    for name, samples, number in (("flat", flat, 1), ("noise", Few([(3, 64, 64)]), 0)):
        write_zarr(str(tmp_path / name), samples)
        array = zarr.open_group(str(tmp_path / name), mode="r")["samples"]
        assert isinstance(array, zarr.Array)
        assert len(array.compressors) == number


def test_what_the_source_left_out_and_what_could_not_be_read_is_kept(tmp_path: Path) -> None:
    some = Few([(3, 2, 2)] * 3, broken=(1,))
    some.left_out = {"files of other kinds (.txt)": 4}
    write_zarr(str(tmp_path / "few.zarr"), some)
    assert opened(tmp_path / "few.zarr").left_out == {
        "files of other kinds (.txt)": 4,
        "samples that could not be read when the group was written": 1,
    }


def test_missing_chunks_of_other_groups_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.full((6, 3, 4, 4), 9, dtype=np.uint8)
    images[2:4] = 0  # zarr itself leaves this chunk out
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    group.create_array("images", data=images, chunks=(2, 3, 4, 4))
    group.create_array("labels", data=np.arange(6), chunks=(3,))
    (tmp_path / "other.zarr" / "labels" / "c" / "1").unlink()
    (tmp_path / "other.zarr" / "images" / "c" / "0" / "0" / "0" / "0").unlink()
    found = opened(tmp_path / "other.zarr")
    expected = {
        "chunks of 'images' that are missing and read as zeros": 2,
        "chunks of 'labels' that are missing and read as zeros": 1,
    }
    assert found.left_out == pickle.loads(pickle.dumps(found)).left_out == expected
    monkeypatch.setattr(zarr_layout, "MAX_LISTED", 2)
    assert opened(tmp_path / "other.zarr").left_out == {"chunks of 'labels' that are missing and read as zeros": 1}


def damage_a_file(folder: Path, chance: random.Random) -> None:
    """Change one file of a group by one bit, or cut it."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.8:
        content[place] ^= 1 << chance.randrange(8)
    else:
        del content[place:]
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_group_is_a_clear_error_or_reads_what_was_written(tmp_path: Path, seed: int) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    damage_a_file(tmp_path / "few.zarr", random.Random(seed))
    with suppress(DataNotFound):
        found = opened(tmp_path / "few.zarr")
        assert len(found) == len(RAGGED)
        for index in range(len(RAGGED)):
            with suppress(UnreadableSample):
                assert same(found.read(index), RAGGED.read(index))


def test_metadata_cannot_ask_for_gigabytes(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 3, 4, 4), dtype=np.uint8), np.zeros(2, dtype=np.int64)
    for name, large in (("images", [2, 3, 10**6, 10**6]), ("labels", [10**12])):
        group = zarr.open_group(str(tmp_path / f"{name}.zarr"), mode="w")
        group.create_array("images", data=images)
        group.create_array("labels", data=labels)
        path = tmp_path / f"{name}.zarr" / name / "zarr.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": large}))
        with pytest.raises(DataNotFound, match=r"more than 178,956,970 pixels per image|'labels' must have 2 entries"):
            opened(tmp_path / f"{name}.zarr")


@pytest.mark.parametrize("damage", [cut, change])
def test_damaged_samples_are_unreadable_never_black(tmp_path: Path, damage: Any) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    damage(shard_of(tmp_path / "few.zarr"))
    with pytest.raises(UnreadableSample, match=r"cannot read .*few\.zarr#0: "):
        opened(tmp_path / "few.zarr").read(0)


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    write_zarr(str(tmp_path / "few.zarr"), RAGGED)
    group = zarr.open_group(str(tmp_path / "few.zarr"), mode="r+")
    group["labels"].resize((4,))  # type: ignore[union-attr]
    with pytest.raises(DataNotFound, match="its arrays do not match each other"):
        opened(tmp_path / "few.zarr")


@pytest.mark.parametrize("shape", [(6, 3, 8, 5), (6, 8, 5, 3), (6, 1, 8, 5)])
def test_a_plain_array_of_others_is_read_with_its_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w", attributes={"class_names": ["a", "b"]})
    group.create_array("images", data=images)
    group.create_array("labels", data=np.array([0, 1, 0, 1, -1, 1], dtype=np.int32))
    found = opened(tmp_path / "other.zarr")
    expected = images[3] if shape[1] <= 4 else images[3].transpose(2, 0, 1)
    assert torch.equal(found.read(3).image, torch.from_numpy(expected.copy()))
    assert (len(found), found.class_names, found.read(3).label, found.label(4)) == (6, ("a", "b"), 1, None)
    assert same(pickle.loads(pickle.dumps(found)).read(5), found.read(5))


def test_a_plain_array_without_labels_ends_where_it_ends(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    group.create_array("images", data=np.zeros((2, 3, 4, 4), dtype=np.uint8))
    found = opened(tmp_path / "other.zarr")
    assert found.label(1) is None
    with pytest.raises(IndexError):
        found.read(2)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 3, 4, 4), dtype=np.float32)}, "got float32"),
        ({"images": np.zeros((2, 4, 4), dtype=np.uint8)}, r"got uint8 \[2, 4, 4\]"),
        ({"images": np.zeros((2, 9, 4, 9), dtype=np.uint8)}, r"must be uint8 \[n, C, H, W\] or"),
        ({"images": np.zeros((2, 3, 4, 4), dtype=np.uint8), "labels": np.zeros(3)}, "'labels' must have 2 entries"),
        ({"images": np.zeros((2, 3, 4, 4), dtype=np.uint8), "labels": np.zeros(2)}, "must be integers, got float64"),
        ({"pictures": np.zeros(3)}, "has no images: write it by write_zarr"),
    ],
)
def test_groups_of_another_kind_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    for name, values in arrays.items():
        group.create_array(name, data=values)
    with pytest.raises(DataNotFound, match=said):
        opened(tmp_path / "other.zarr")


@pytest.mark.parametrize("url", ["/nowhere.zarr", "gs://a.zarr", "memory://nowhere.zarr"])
def test_a_group_that_is_not_there_is_reported(url: str) -> None:
    with pytest.raises(DataNotFound, match=f"cannot open {url} as a zarr group"):
        opened(url)


def test_a_place_is_needed() -> None:
    with pytest.raises(InvalidValue, match="url: must name a zarr group, got ''"):
        ZarrImages(url="")


def test_a_source_that_is_not_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"takes a URL and an open source.*write_zarr\(url, s.open\(\)\)"):
        write_zarr(str(tmp_path / "images.zarr"), BundledFashionMNIST())  # type: ignore[arg-type]


class Touch:
    """Pickled bytes of this make a file when they are unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("codecs", [{"compressor": {"id": "pickle"}}, {"filters": [{"id": "pickle"}]}])
@pytest.mark.parametrize("dtype", ["|u1", "|O"])
def test_a_group_that_asks_for_pickle_is_never_unpickled(codecs: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    array = {"zarr_format": 2, "dtype": dtype, "fill_value": 0, "order": "C", "compressor": None, "filters": None}
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    for name, shape in (("images", [1, 3, 4, 4]), ("labels", [1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".zarray").write_text(json.dumps({**array, "shape": shape, "chunks": shape, **codecs}))
        (tmp_path / name / ".".join("0" * len(shape))).write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises((ValueError, RuntimeError)):
        opened(tmp_path).read(0)
    assert not (tmp_path / "ran").exists()
