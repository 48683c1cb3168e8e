import gzip
import hashlib
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import fsspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save
from shards import captioned_shard, picture, write_shard

from aimcore import InvalidValue, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore_sources import WebDataset, webdataset, webdataset_index
from aimcore_sources.webdataset_shards import expand
from aimcore_sources.webdataset_tar import ShardError

BOTH = {"alt": "txt", "synthetic": "json#synthetic"}


@pytest.fixture
def two(tmp_path: Path) -> str:
    captioned_shard(tmp_path / "d-00000.tar", 0, 3)
    captioned_shard(tmp_path / "d-00001.tar", 3, 2)
    return str(tmp_path / "d-{00000..00001}.tar")


def test_samples_are_read_by_number_over_all_shards(two: str) -> None:
    source = WebDataset(url=two, captions=BOTH).open()
    sample = source.read(3)
    assert len(source) == 5
    assert (sample.identifier, sample.image[:, 0, 0].tolist()) == ("d-00001.tar/s003", [3, 0, 0])
    assert sample.captions == {"alt": ("caption 3",), "synthetic": ("long 3", "longer 3")}
    assert sample.label is None


def test_labels_are_names_or_numbers(two: str, tmp_path: Path) -> None:
    named = WebDataset(url=two, label="json#category", class_names=("b", "a")).open()
    assert [named.label(index) for index in range(5)] == [1, 0, 1, 0, 1]
    assert named.read(1).label == 0
    url = write_shard(tmp_path / "n.tar", {"x.png": picture(), "x.cls": b" 7\n"})
    assert WebDataset(url=url, captions={}, label="cls").open().label(0) == 7


@pytest.mark.parametrize("content", [b"-1", b"two", b"12", b"1.5"])
def test_a_label_that_is_none_makes_the_sample_unreadable(tmp_path: Path, content: bytes) -> None:
    url = write_shard(tmp_path / "n.tar", {"x.png": picture(), "x.cls": content})
    with pytest.raises(UnreadableSample, match=r"n.tar/x: 'cls' must contain a label, one of \['a', 'b'\]"):
        WebDataset(url=url, label="cls", class_names=("a", "b")).open().label(0)


def test_a_sample_may_lack_a_caption_but_not_the_image(tmp_path: Path) -> None:
    members = {"a.png": picture(1), "b.txt": b"no image", "c.jpg": picture(3, "JPEG"), "c.txt": b"  ", "d": b"x"}
    source = WebDataset(url=write_shard(tmp_path / "x.tar", members), captions=BOTH).open()
    assert [source.read(index).identifier for index in range(len(source))] == ["x.tar/a", "x.tar/c"]
    assert [source.read(index).captions for index in range(2)] == [{}, {}]


def test_everything_up_to_the_first_dot_is_the_key_and_the_first_extension_counts(tmp_path: Path) -> None:
    members = {"a.b/x.seg.png": picture(1), "a.b/x.PNG": picture(2), "a.b/x.webp": picture(3, "WEBP"), "._x.png": b""}
    url = write_shard(tmp_path / "x.tar", members)
    assert WebDataset(url=url).open().read(0).image[0, 0, 0] == 2
    assert WebDataset(url=url, images=("seg.png",)).open().read(0).identifier == "x.tar/a.b/x"


def test_it_travels_to_workers(two: str) -> None:
    source = WebDataset(url=two).open()
    arrived = pickle.loads(pickle.dumps(source))
    assert torch.equal(arrived.read(4).image, source.read(4).image)
    assert arrived.read(4).captions == {"alt": ("caption 4",)}


def test_any_file_system_will_do_and_remote_shards_leave_nothing_behind(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/shards/a.tar", Path(captioned_shard(tmp_path / "a.tar", 7, 1)).read_bytes())
    source = WebDataset(url="memory://shards/*.tar").open()
    assert source.read(0).captions == {"alt": ("caption 7",)}
    assert memory.ls("/shards", detail=False) == ["/shards/a.tar"]


def test_the_index_is_kept_beside_the_shard_and_used_again(two: str, tmp_path: Path, monkeypatch) -> None:
    first = WebDataset(url=two).open()
    assert (tmp_path / "d-00000.tar.index.safetensors").is_file()
    monkeypatch.setattr(webdataset_index, "_scanned", lambda shard: pytest.fail(f"{shard} is scanned again"))
    assert WebDataset(url=two, captions=BOTH).open().read(0).identifier == first.read(0).identifier


def test_a_shard_that_changed_is_scanned_again(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    url = captioned_shard(path, 0, 2)
    assert len(WebDataset(url=url).open()) == 2
    captioned_shard(path, 0, 4)
    assert len(WebDataset(url=url).open()) == 4


def test_a_shard_of_the_same_size_but_another_time_is_scanned_again(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    url = captioned_shard(path, 0, 2)
    assert WebDataset(url=url).open().read(0).identifier == "x.tar/s000"
    before = path.stat()
    captioned_shard(path, 5, 2)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert path.stat().st_size == before.st_size
    assert WebDataset(url=url).open().read(0).identifier == "x.tar/s005"


def head_of(cache: Path) -> dict:
    with safe_open(cache, framework="np") as file:
        return json.loads(file.metadata()["index"].partition(" ")[2])


def write_index(cache: Path, head: dict, **arrays: np.ndarray) -> None:
    text = json.dumps(head)
    checksum = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    cache.write_bytes(save(arrays, {"index": f"{checksum} {text}"}))


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_damaged_index_is_made_anew(tmp_path: Path, length: int) -> None:
    url, cache = captioned_shard(tmp_path / "x.tar", 0, 2), tmp_path / "x.tar.index.safetensors"
    WebDataset(url=url).open()
    whole = cache.read_bytes()
    cache.write_bytes(whole[:length])
    assert WebDataset(url=url).open().read(1).captions == {"alt": ("caption 1",)}
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("change", [{"format": 2}, {"shard": ["1", "2"]}, {"counts": None}, {"counts": [3]}])
def test_an_index_that_does_not_fit_is_made_anew(tmp_path: Path, change: dict) -> None:
    url, cache = captioned_shard(tmp_path / "x.tar", 0, 2), tmp_path / "x.tar.index.safetensors"
    WebDataset(url=url).open()
    head = head_of(cache)
    arrays = load_file(cache)
    # A whole file whose offsets are wrong: used if nothing else were looked at.
    write_index(cache, head | change, **(arrays | {"places_m2": arrays["places_m2"] + 1}))
    assert WebDataset(url=url).open().read(1).captions == {"alt": ("caption 1",)}
    assert head_of(cache) == head


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_in_an_index_is_noticed(tmp_path: Path, seed: int) -> None:
    url, cache = captioned_shard(tmp_path / "x.tar", 0, 2), tmp_path / "x.tar.index.safetensors"
    WebDataset(url=url).open()
    whole = bytearray(cache.read_bytes())
    # One in each twelfth of the file, the last of which hold the arrays.
    whole[len(whole) * seed // 12 + 7] ^= 1 << seed % 8
    cache.write_bytes(whole)
    opened = WebDataset(url=url).open()
    found = [opened.read(index) for index in range(len(opened))]
    assert [(sample.identifier, sample.captions["alt"]) for sample in found] == [
        ("x.tar/s000", ("caption 0",)),
        ("x.tar/s001", ("caption 1",)),
    ]


def test_offsets_that_were_changed_are_noticed_when_they_are_first_used(tmp_path: Path) -> None:
    url, cache = captioned_shard(tmp_path / "x.tar", 0, 2), tmp_path / "x.tar.index.safetensors"
    WebDataset(url=url).open()
    whole, arrays = cache.read_bytes(), load_file(cache)
    write_index(cache, head_of(cache), **(arrays | {"places_m2": arrays["places_m2"] + 1}))
    assert WebDataset(url=url).open().read(1).captions == {"alt": ("caption 1",)}
    assert cache.read_bytes() == whole


def test_whatever_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    names = ["photo.png", "photo.1.png", "photo.2.png", "photo.webp", "b.txt", "b.xml", "c.png", "c.xml", "c.json"]
    write_shard(tmp_path / "0.tar", {name: picture() for name in (*names, "._c.png", "README")})
    write_shard(tmp_path / "1.tar", {"d.png": picture(), "d.seg.xml": b"<x/>"})
    opened = WebDataset(url=str(tmp_path / "*.tar"), captions={"alt": "txt"}, label="json#label").open()
    assert len(opened) == 3
    assert dict(opened.left_out) == {
        "members of other kinds (.xml)": 3,
        "members with a dot in their key (in photo.1.jpg the key is photo)": 2,
        "hidden members, and members without an extension": 2,
        "samples without an image": 1,
        "further images of a sample": 1,
    }
    assert pickle.loads(pickle.dumps(opened)).left_out == opened.left_out


def test_of_many_endings_the_most_frequent_are_named(tmp_path: Path) -> None:
    members = {f"{number}.{'abcdefg'[kind]}": b"" for kind in range(7) for number in range(9 - kind)}
    url = write_shard(tmp_path / "x.tar", members | {"0.png": picture()})
    assert [*WebDataset(url=url).open().left_out.items()] == [
        ("members of other kinds (.a)", 9),
        ("members of other kinds (.b)", 8),
        ("samples without an image", 8),
        ("members of other kinds (.c)", 7),
        ("members of other kinds (.d)", 6),
        ("members of other kinds (.e)", 5),
        ("members of other kinds (further endings)", 7),
    ]


def test_neither_memory_nor_what_travels_to_workers_grows_with_the_samples(tmp_path: Path) -> None:
    few, many = (
        write_shard(
            tmp_path / f"{count}.tar",
            {f"{number:04}.{kind}": b"x" for number in range(count) for kind in ("png", "txt")},
        )
        for count in (2, 3000)
    )
    sent = [pickle.dumps(WebDataset(url=url, captions=BOTH).open()) for url in (few, many)]
    assert abs(len(sent[0]) - len(sent[1])) < 20
    tracemalloc.start()
    source = WebDataset(url=many).open()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Where a sample and its caption lie takes 44 bytes, and its key more: not half of that is held, not for a moment.
    assert (len(source), peak < 20 * 3000) == (3000, True)


def test_samples_without_an_image_are_left_out_in_every_shard(tmp_path: Path) -> None:
    for number, names in enumerate((["a.png", "b.txt", "c.webp"], ["d.txt"], ["e.png", "f.png"], ["g.txt", "h.png"])):
        write_shard(tmp_path / f"{number}.tar", {name: picture() for name in names})
    source = pickle.loads(pickle.dumps(WebDataset(url=str(tmp_path / "*.tar"), captions={}).open()))
    names = [source.read(index).identifier for index in range(len(source))]
    assert names == ["0.tar/a", "0.tar/c", "2.tar/e", "2.tar/f", "3.tar/h"]
    assert len(WebDataset(url=str(tmp_path / "*.tar"), images=("webp",)).open()) == 1
    for index in (-1, 5):
        with pytest.raises(IndexError, match=f"there are 5 samples, no number {index}"):
            source.read(index)


def test_an_interrupted_scan_leaves_no_index(two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        WebDataset(url=two).open()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d-00000.tar", "d-00001.tar"]


def test_an_index_that_is_lost_is_made_again_where_the_shard_is_the_same(two: str, tmp_path: Path) -> None:
    sent = pickle.dumps(WebDataset(url=two).open())
    for cache in tmp_path.glob("*.index.safetensors"):
        cache.unlink()
    os.utime(tmp_path / "d-00001.tar", (0, 0))
    assert pickle.loads(sent).read(4).captions == {"alt": ("caption 4",)}


def test_a_shard_that_becomes_another_one_while_it_is_used_is_reported(two: str, tmp_path: Path) -> None:
    sent = pickle.dumps(WebDataset(url=two).open())
    write_shard(tmp_path / "d-00001.tar", {f"{name}.png": picture() for name in "abc"})
    assert len(WebDataset(url=two).open()) == 6
    with pytest.raises(UnreadableSample, match=r"read d-00001\.tar: .* has changed since it was scanned: start"):
        pickle.loads(sent).read(4)


def test_indices_may_be_kept_elsewhere_or_nowhere(tmp_path: Path) -> None:
    url = captioned_shard(tmp_path / "x.tar", 0, 1)
    assert len(WebDataset(url=url, cache_folder=str(tmp_path / "cache")).open()) == 1
    assert [path.name[:6] for path in (tmp_path / "cache").iterdir()] == ["x.tar."]
    (tmp_path / "file").write_text("no folder")
    held = WebDataset(url=url, cache_folder=str(tmp_path / "file")).open()
    assert pickle.loads(pickle.dumps(held)).read(0).captions == {"alt": ("caption 0",)}
    assert not Path(f"{url}.index.safetensors").exists()


def test_equal_shards_in_two_folders_share_neither_names_nor_indices(tmp_path: Path) -> None:
    for number, folder in enumerate("ab"):
        captioned_shard(tmp_path / folder / "x.tar", number, 1)
    source = WebDataset(url=str(tmp_path / "{a,b}" / "x.tar"), cache_folder=str(tmp_path / "cache")).open()
    names = [source.read(index).identifier for index in range(2)]
    assert [name.removeprefix(str(tmp_path).lstrip("/")) for name in names] == ["/a/x.tar/s000", "/b/x.tar/s001"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_braces_are_written_out_with_their_zeros() -> None:
    assert expand("s3://b/{098..101}-{x,y}.tar")[:3] == ("s3://b/098-x.tar", "s3://b/098-y.tar", "s3://b/099-x.tar")
    assert expand("{8..11}") == ("8", "9", "10", "11")
    assert expand("plain{}.tar") == ("plain{}.tar",)


def test_a_star_finds_shards_in_linked_folders_once(tmp_path: Path) -> None:
    for number, folder in enumerate(("elsewhere", "shards/plain")):
        captioned_shard(tmp_path / folder / "x.tar", number, 1)
    (tmp_path / "shards" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "shards" / "plain" / "up").symlink_to("..")
    (tmp_path / "shards" / "plain" / "again.tar").symlink_to("x.tar")
    for pattern in ("*/x.tar", "**/x.tar", "**/[pl]*/x.tar", "*/**/x.tar"):
        found = expand(str(tmp_path / "shards" / pattern))
        assert [name.partition("shards/")[2] for name in found] == ["linked/x.tar", "plain/x.tar"]
    # A shard may be linked beside itself, to be read twice as often.
    assert len(WebDataset(url=str(tmp_path / "shards" / "plain" / "*.tar")).open()) == 2


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    captioned_shard(tmp_path / "d-0.tar", 0, 1)
    with pytest.raises(DataNotFound, match=r"cannot open the shard .*d-1\.tar: FileNotFoundError"):
        WebDataset(url=str(tmp_path / "d-{0..1}.tar")).open()
    with pytest.raises(DataNotFound, match=r"no shard matches .*e-\*\.tar"):
        WebDataset(url=str(tmp_path / "e-*.tar")).open()


def test_shards_without_images_are_an_error(tmp_path: Path) -> None:
    url = write_shard(tmp_path / "x.tar", {"a.txt": b"text"})
    with pytest.raises(DataNotFound, match=r"no image in .*x\.tar \(looked for members ending in \('jpg', "):
        WebDataset(url=url).open()


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    url = captioned_shard(tmp_path / "x.tar", 0, 1)
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(Path(url).read_bytes()))
    with pytest.raises(ShardError, match=r"x\.tar\.gz cannot be read by index: .* decompress a \.tar\.gz"):
        WebDataset(url=str(packed)).open()


@pytest.mark.parametrize("keep", [100, 700, 1600])
def test_a_truncated_shard_is_refused(tmp_path: Path, keep: int) -> None:
    path = Path(captioned_shard(tmp_path / "x.tar", 0, 3))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ShardError, match="must be whole, plain tar files"):
        WebDataset(url=str(path)).open()


def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    url = write_shard(tmp_path / "x.tar", [("a.png", picture()), ("a.PNG", picture())])
    with pytest.raises(ShardError, match=r"x\.tar has 'a\.PNG' twice"):
        WebDataset(url=url).open()


def test_hostile_names_are_names_and_nothing_is_written(tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/passwd.png", "line\nbreak.png", "esc\x1b[31m.png", "\udce9.png", "a" * 300 + ".png"]
    folder = tmp_path / "in" / "here"
    url = write_shard(folder / "x.tar", [(name, picture(number)) for number, name in enumerate(names)])
    source = WebDataset(url=url).open()
    found = [source.read(index).identifier for index in range(len(source))]
    assert found[:5] == [
        "x.tar/../../up", "x.tar//etc/passwd", "x.tar/line\\nbreak", "x.tar/esc\\x1b[31m", "x.tar/\\udce9",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["x.tar", "x.tar.index.safetensors"]
    assert WebDataset(url=url).open().read(4).identifier == found[4]


def test_links_devices_and_folders_are_no_members(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "x.tar"
    write_shard(path, {"real.png": picture(9)})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.DIRTYPE)):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, "/etc/passwd"
            tar.addfile(header)
    opened = WebDataset(url=str(path)).open()
    assert (len(opened), opened.left_out) == (1, {"links and devices": 2})


def test_a_negative_size_does_not_send_the_scan_round_in_circles(tmp_path: Path) -> None:
    path = Path(write_shard(tmp_path / "x.tar", {"a.png": picture(), "b.png": picture()}))
    content = bytearray(path.read_bytes())
    # The size field of the first header, in base 256: minus 1024 bytes.
    content[124:136] = b"\xff" * 4 + struct.pack(">q", -1024)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"the header of 'a\.png' is damaged"):
        WebDataset(url=str(path)).open()


def test_damaged_members_make_their_sample_unreadable(tmp_path: Path) -> None:
    members = {"a.png": b"no image", "b.png": picture(), "b.txt": b"\xff\xfe", "c.png": picture(), "c.json": b"{",
               "d.png": picture(), "d.json": b'{"synthetic": 3}'}  # fmt: skip
    source = WebDataset(url=write_shard(tmp_path / "x.tar", members), captions=BOTH).open()
    causes = (
        "it is damaged, or none of",
        r"its \.txt is not UTF-8 text: byte 0 is 0xff",
        r"its \.json is not JSON: Expecting",
        "must contain text",
    )
    for index, cause in enumerate(causes):
        with pytest.raises(UnreadableSample, match=cause):
            source.read(index)


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path: Path) -> None:
    members = {"a.png": picture(), "a.txt": b"\xef\xbb\xbfone\xe2\x80\xa8line"}
    source = WebDataset(url=write_shard(tmp_path / "x.tar", members)).open()
    assert source.read(0).captions == {"alt": ("one\u2028line",)}


def test_a_huge_caption_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_TEXT", 10)
    source = WebDataset(url=write_shard(tmp_path / "x.tar", {"a.png": picture(), "a.txt": b"x" * 11})).open()
    with pytest.raises(UnreadableSample, match="a text of 11 bytes is longer than 10"):
        source.read(0)


def test_a_shard_cut_while_it_is_read_is_reported(two: str, tmp_path: Path) -> None:
    source = WebDataset(url=two).open()
    path = tmp_path / "d-00001.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UnreadableSample, match="its shard is shorter than when it was scanned"):
        source.read(4)
    path.unlink()
    with pytest.raises(UnreadableSample, match=r"d-00001\.tar/s004: FileNotFoundError"):
        source.read(4)


def test_a_source_without_extensions_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"images: name at least one extension[\s\S]*'alt' must name a member's"):
        WebDataset(url="x.tar", images=(), captions={"alt": "#caption"})
