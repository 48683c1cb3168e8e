import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from aimcore import InvalidValue, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore_sources import ImageFolder

RED, BLUE = (200, 0, 0), (0, 0, 200)


def encoded(
    colour: tuple[int, ...] = RED, size: tuple[int, int] = (6, 4), mode: str = "RGB", **options: object
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"dog/b.PNG": BLUE, "cat/a.png": RED, "cat/deep/c.png": BLUE, "dog/.hidden.png": RED, ".cache/x.png": RED}
    for name, colour in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(colour))
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def in_memory() -> Iterator[str]:
    filesystem = fsspec.filesystem("memory")
    for name in ("two/x.png", "one/y.png"):
        filesystem.pipe_file(f"/pictures/{name}", encoded())
    yield "memory://pictures"
    filesystem.rm("/pictures", recursive=True)


def test_sub_folders_are_classes_in_sorted_order(folder: Path) -> None:
    source = ImageFolder(url=str(folder)).open()
    assert source.class_names == ("cat", "dog")
    assert [(source.read(i).identifier, source.label(i)) for i in range(len(source))] == [
        ("cat/a.png", 0), ("cat/deep/c.png", 0), ("dog/b.PNG", 1),
    ]  # fmt: skip


def test_labels_are_known_without_reading_images(folder: Path) -> None:
    known_n = ImageFolder(url=str(folder)).open().known_labels()
    assert known_n is not None
    assert known_n.tolist() == [0, 0, 1]


def names_in(folder: Path) -> list[str]:
    source = ImageFolder(url=str(folder)).open()
    return [source.read(index).identifier for index in range(len(source))]


def test_a_linked_class_folder_is_a_class(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep").mkdir()
    for name in ("x.png", "deep/y.png"):
        (elsewhere / name).write_bytes(encoded())
    (folder / "bird").symlink_to(elsewhere)
    (folder / "cat" / "more.png").symlink_to(elsewhere / "x.png")
    source = ImageFolder(url=str(folder)).open()
    assert source.class_names == ("bird", "cat", "dog")
    assert names_in(folder)[:3] == ["bird/deep/y.png", "bird/x.png", "cat/a.png"]
    assert "cat/more.png" in names_in(folder)
    assert [source.label(index) for index in range(len(source))] == [0, 0, 1, 1, 1, 2]


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / "self").symlink_to(folder / "cat" / "self")
    (folder / "cat" / "deep" / "back").symlink_to("..")
    (folder / "dog" / "cats").symlink_to(folder / "cat" / "deep")
    # The cats are dogs too, below another class; their link back to the cats leads to the same folder once more.
    assert names_in(folder) == [
        "cat/a.png", "cat/deep/c.png",
        "dog/b.PNG", "dog/cats/back/a.png", "dog/cats/c.png",
    ]  # fmt: skip
    # Below the cats: up and deep/back; below the dogs: cats/back/deep and cats/back/up.
    left_out = ImageFolder(url=str(folder)).open().left_out
    assert (left_out["folders that links lead to again"], left_out["broken links"]) == (4, 2)


def test_many_paths_to_one_folder_are_one(folder: Path) -> None:
    place = folder / "cat"
    for depth in range(40):
        (place / f"level{depth}").mkdir()
        (place / "twin").symlink_to(f"level{depth}")
        place /= f"level{depth}"
    (place / "z.png").write_bytes(encoded())
    assert sum(name.endswith("z.png") for name in names_in(folder)) == 1
    assert not any("twin" in name for name in names_in(folder))


def test_whatever_is_left_out_is_counted_by_reason(folder: Path) -> None:
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "empty").mkdir()
    (folder / "dog" / "README").write_text("no image")
    source = ImageFolder(url=str(folder)).open()
    assert dict(source.left_out) == {
        "hidden files and folders": 2,
        "files of other kinds (.txt)": 1,
        "files of other kinds (without ending)": 1,
        "broken links": 1,
        "folders without an image": 1,
    }
    assert pickle.loads(pickle.dumps(source)).left_out == source.left_out


def test_a_folder_that_cannot_be_listed_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> Any:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert ImageFolder(url=str(folder)).open().left_out["folders that cannot be listed"] == 1


def test_elsewhere_what_is_left_out_is_counted_too(in_memory: str) -> None:
    filesystem = fsspec.filesystem("memory")
    for name in ("notes/a.txt", "one/.hidden.png"):
        filesystem.pipe_file(f"/pictures/{name}", b"")
    assert dict(ImageFolder(url=in_memory).open().left_out) == {
        "files of other kinds (.txt)": 1,
        "folders without an image": 1,
        "hidden files and folders": 1,
    }


def test_an_image_is_rgb_channels_first(folder: Path) -> None:
    image = ImageFolder(url=f"file://{folder}/").open().read(2).image
    assert (image.shape, image.dtype) == ((3, 4, 6), torch.uint8)
    assert image[:, 0, 0].tolist() == list(BLUE)


def test_a_flat_folder_has_no_labels(folder: Path) -> None:
    source = ImageFolder(url=str(folder / "cat" / "deep")).open()
    assert (len(source), source.class_names) == (1, ())
    assert source.read(0).label is None


def test_any_file_system_of_fsspec_will_do(in_memory: str) -> None:
    source = ImageFolder(url=in_memory).open()
    assert [source.read(index).identifier for index in range(2)] == ["one/y.png", "two/x.png"]
    assert source.read(0).image[:, 0, 0].tolist() == list(RED)


def test_it_travels_to_workers(folder: Path) -> None:
    source = ImageFolder(url=str(folder)).open()
    source.read(0)
    arrived = pickle.loads(pickle.dumps(source))
    assert torch.equal(arrived.read(1).image, source.read(1).image)
    assert arrived.label(2) == 1


def test_grey_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded((7,), mode="L"))
    (tmp_path / "2.png").write_bytes(encoded((1, 2, 3, 0), mode="RGBA"))
    (tmp_path / "3.png").write_bytes(encoded((300,), mode="I;16"))
    source = ImageFolder(url=str(tmp_path)).open()
    assert [source.read(index).image[:, 0, 0].tolist() for index in range(3)] == [[7, 7, 7], [1, 2, 3], [1, 1, 1]]


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    picture = np.zeros((4, 6, 3), dtype=np.uint8)
    picture[0, 0] = 255
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    image = ImageFolder(url=str(tmp_path)).open().read(0).image
    assert image.shape == (3, 6, 4)
    assert image[0].nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        ("truncated", r"\w+: .+"),
        ("empty", "the file is empty: fetch it again"),
        ("no image", "it is damaged, or none of AVIF, .+: fetch it again, or convert it to one of them"),
    ],
)
def test_damaged_files_are_named_with_the_cause(tmp_path: Path, format_name: str, damage: str, cause: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=format_name)
    whole = buffer.getvalue()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "no image": b"hello" * 50}[damage]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UnreadableSample, match=f"^cannot read bad.png: {cause}$"):
        ImageFolder(url=str(tmp_path)).open().read(0)


def test_a_vanished_file_is_unreadable(folder: Path) -> None:
    source = ImageFolder(url=str(folder)).open()
    (folder / "cat" / "a.png").unlink()
    with pytest.raises(UnreadableSample, match=r"cat/a.png: FileNotFoundError"):
        source.read(0)


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(encoded())
    with pytest.raises(UnreadableSample, match=r"6 x 4 px are more than 23 pixels \(max_pixels\)"):
        ImageFolder(url=str(tmp_path), max_pixels=23).open().read(0)
    assert ImageFolder(url=str(tmp_path), max_pixels=24).open().read(0).image.shape == (3, 4, 6)
    with pytest.raises(InvalidValue, match="max_pixels: must lie between 1 and 178956970, got 0"):
        ImageFolder(url=str(tmp_path), max_pixels=0)


def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"no image in .* \(looked for files ending in .bmp"):
        ImageFolder(url=str(tmp_path)).open()
    with pytest.raises(DataNotFound, match=r"no image in .*nowhere"):
        ImageFolder(url=str(tmp_path / "nowhere")).open()


def test_a_protocol_that_is_not_allowed_or_lacks_a_package_is_named() -> None:
    with pytest.raises(InvalidValue, match=r"url: 'nosuch://bucket' is refused: the protocol 'nosuch' is not allowed"):
        ImageFolder(url="nosuch://bucket")
    with pytest.raises(DataNotFound, match=r"ImageFolder: 'gs://bucket' cannot be opened: .*gcsfs"):
        ImageFolder(url="gs://bucket").open()


def test_images_beside_class_folders_are_an_error(folder: Path) -> None:
    (folder / "loose.png").write_bytes(encoded())
    with pytest.raises(
        InvalidValue, match=r"url: 1 images are directly in .* \(such as loose.png\), 3 in class folders"
    ):
        ImageFolder(url=str(folder)).open()


NAMES = {
    "lines": "cat\ttabby cat, moggy\n\ndog  hound\nzebra horse\n",
    "byte order mark": "\ufeffcat tabby cat, moggy\r\ndog hound\r\n",
    "json": '{"dog": "hound", "zebra": "horse", "cat": "tabby cat, moggy"}',
}


@pytest.mark.parametrize("content", NAMES.values(), ids=NAMES)
def test_classes_are_called_as_a_file_says(folder: Path, content: str) -> None:
    (folder / "names.txt").write_text(content, encoding="utf-8", newline="")
    source = ImageFolder(url=str(folder), names=f"file://{folder}/names.txt").open()
    assert source.class_names == ("tabby cat", "hound")
    assert [pickle.loads(pickle.dumps(source)).label(index) for index in range(3)] == [0, 0, 1]


def test_two_classes_may_have_one_name_and_the_order_is_that_of_the_folders(folder: Path) -> None:
    (folder / "names.json").write_text('{"cat": "crane", "dog": "crane"}')
    source = ImageFolder(url=str(folder), names=str(folder / "names.json")).open()
    assert source.class_names == ("crane", "crane")
    assert [source.label(index) for index in range(3)] == [0, 0, 1]


def test_folders_without_a_name_are_listed(folder: Path) -> None:
    (folder / "names.txt").write_text("hen bird")
    with pytest.raises(InvalidValue, match=r"names: .*names\.txt has no name for 2 of 2 class folders: 'cat', 'dog'"):
        ImageFolder(url=str(folder), names=str(folder / "names.txt")).open()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat tabby\ndog\n", r"names\.txt: line 2 must be a folder and its name, got 'dog'"),
        (b"cat tabby\ndog ,hound\n", r"names\.txt: line 2 must be a folder and its name, got 'dog ,hound'"),
        (b"cat tabby\ncat moggy\n", r"names\.txt: 'cat' occurs twice"),
        (b'{"cat": 3}', r"names\.txt: 'cat' must have a text as its name, got 3"),
        (b'{"cat": ', r"names\.txt is not JSON: Expecting value"),
        (b"\xff\xfe", r"names\.txt is not UTF-8 text: byte 0 is 0xff"),
        (b'{"cat": "a \\ud83d"}', r"names\.txt: in the name of 'cat', character 2 is the lone surrogate U\+D83D"),
    ],
)
def test_a_file_of_names_that_is_none_is_an_error(folder: Path, content: bytes, message: str) -> None:
    (folder / "names.txt").write_bytes(content)
    with pytest.raises(InvalidValue, match=message):
        ImageFolder(url=str(folder), names=str(folder / "names.txt")).open()


def test_names_need_a_file_and_class_folders(folder: Path) -> None:
    with pytest.raises(DataNotFound, match=r"cannot read the names of classes .*gone\.txt: FileNotFoundError"):
        ImageFolder(url=str(folder), names=str(folder / "gone.txt")).open()
    with pytest.raises(InvalidValue, match=r"names: .*deep has no class folders that could have names"):
        ImageFolder(url=str(folder / "cat" / "deep"), names="unused.txt").open()
