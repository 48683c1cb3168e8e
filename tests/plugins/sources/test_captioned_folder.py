import json
import pickle
from pathlib import Path

import pytest
from shards import picture

from aimcore import InvalidValue, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore_sources import CaptionedFolder


def folder_of(root: Path, *lines: object) -> CaptionedFolder:
    for number, name in enumerate(("one.png", "deep/two.png", "three.png")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(picture(number))
    written = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    (root / "captions.jsonl").write_text("\n".join(written) + "\n", encoding="utf-8")
    return CaptionedFolder(url=str(root))


def test_samples_come_in_the_order_of_the_listing(tmp_path: Path) -> None:
    lines = ({"file": "three.png", "caption": "né"}, "", {"file": "deep/two.png"})
    source = folder_of(tmp_path, *lines).open()
    first, second = source.read(0), source.read(1)
    assert (first.identifier, first.image[0, 0, 0].item(), first.captions) == ("three.png", 2, {"alt": ("né",)})
    assert (second.identifier, second.captions, second.label) == ("deep/two.png", {}, None)


def test_images_without_a_line_and_lines_without_an_image_are_counted(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"file": "./one.png"}, {"file": "gone.png"}, {"file": "link.png"}, {"file": ".h.png"})
    (tmp_path / ".h.png").write_bytes(picture(7))
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "more").symlink_to(tmp_path / "deep")
    opened = source.open()
    # deep/two.png, more/two.png and three.png; gone.png and the broken link.
    assert opened.left_out == {"images that no line names": 3, "lines whose image is missing": 2}
    assert (len(opened), opened.read(3).image[0, 0, 0].item()) == (4, 7)
    with pytest.raises(UnreadableSample, match=r"link\.png: FileNotFoundError"):
        opened.read(2)


def test_a_line_may_name_an_image_behind_a_link(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"file": "more/two.png"})
    (tmp_path / "more").symlink_to(tmp_path / "deep")
    opened = source.open()
    assert opened.read(0).image[0, 0, 0].item() == 1
    assert opened.left_out == {"images that no line names": 3}


def test_a_listing_is_read_as_any_text_is(tmp_path: Path) -> None:
    lines = ["\ufeff" + json.dumps({"file": "one.png"}) + "\r", {"file": "three.png", "caption": "a\u2028b\x85c"}]
    source = folder_of(tmp_path, *lines).open()
    assert [source.read(index).identifier for index in range(2)] == ["one.png", "three.png"]
    assert source.read(1).captions == {"alt": ("a\u2028b\x85c",)}
    (tmp_path / "captions.jsonl").write_bytes(b'{"file": "on\xe9.png"}')
    with pytest.raises(DataNotFound, match=r"captions.jsonl is not UTF-8 text: byte 12 is 0xe9"):
        CaptionedFolder(url=str(tmp_path)).open()


def test_a_label_with_half_a_character_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"captions.jsonl:1: in 'label', character 1 is the lone surrogate U\+D83D"):
        folder_of(tmp_path, '{"file": "one.png", "label": "a\\ud83d"}').open()


def test_captions_may_be_several_of_several_kinds(tmp_path: Path) -> None:
    captions = {"synthetic": ["long", "longer"], "alt": "short", "none": []}
    sample = folder_of(tmp_path, {"file": "one.png", "captions": captions}).open().read(0)
    assert sample.captions == {"synthetic": ("long", "longer"), "alt": ("short",)}
    assert list(sample.captions) == ["synthetic", "alt"]


def test_labels_by_name_are_sorted_into_classes(tmp_path: Path) -> None:
    lines = [{"file": "one.png", "label": "shoe"}, {"file": "three.png", "label": "bag"}]
    source = folder_of(tmp_path, *lines).open()
    assert source.class_names == ("bag", "shoe")
    assert [source.label(0), source.read(1).label] == [1, 0]


def test_labels_may_be_numbers(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"file": "one.png", "label": 4}, {"file": "three.png", "label": 0}).open()
    assert ([source.label(0), source.label(1)], source.class_names) == ([4, 0], ())


def test_labels_of_two_sorts_are_refused(tmp_path: Path) -> None:
    lines = [{"file": "one.png", "label": "shoe"}, {"file": "three.png", "label": 0}, {"file": "deep/two.png"}]
    with pytest.raises(InvalidValue, match=r"captions\.jsonl: labels must be .* got names, no label, numbers"):
        folder_of(tmp_path, *lines).open()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ([1], "must be a mapping, got"),
        ({"file": "one.png", "captoin": "x"}, r"unknown key \['captoin'\]"),
        ({"caption": "x"}, "'file' must be a path within the folder, got None"),
        ({"file": "../one.png"}, "'file' must be a path within the folder"),
        ({"file": "/etc/passwd"}, "'file' must be a path within the folder"),
        ({"file": "a\\..\\b.png"}, "'file' must be a path within the folder"),
        ({"file": "one.png", "label": True}, "'label' must be a name or a number from 0 on"),
        ({"file": "one.png", "label": -1}, "'label' must be a name or a number from 0 on"),
        ({"file": "one.png", "captions": "x"}, "give either 'caption', one text, or 'captions'"),
        ({"file": "one.png", "caption": "x", "captions": {}}, "give either 'caption', one text, or 'captions'"),
        ({"file": "one.png", "captions": {"alt": [1]}}, "captions of kind 'alt' must be a text or a list"),
        ({"file": "three.png"}, "'three.png' occurs twice"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(InvalidValue, match=rf"captions\.jsonl:3: .*{message}"):
        folder_of(tmp_path, {"file": "three.png"}, "", line).open()


def test_many_wrong_lines_are_reported_together_up_to_five(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"captions\.jsonl:5: [\s\S]*and 4 more lines"):
        folder_of(tmp_path, *["{"] * 9).open()


def test_a_listing_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"cannot read .*captions\.jsonl \(FileNotFoundError.*one line of JSON"):
        CaptionedFolder(url=str(tmp_path)).open()
    with pytest.raises(DataNotFound, match=r"captions\.jsonl names no image"):
        folder_of(tmp_path).open()


def test_a_missing_image_is_unreadable(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"file": "no\nimage.png", "caption": "x"}).open()
    with pytest.raises(UnreadableSample, match=r"cannot read no\\nimage\.png: FileNotFoundError"):
        source.read(0)


def test_it_travels_to_workers(tmp_path: Path) -> None:
    source = folder_of(tmp_path, {"file": "one.png", "caption": "x", "label": "a"}).open()
    arrived = pickle.loads(pickle.dumps(source))
    assert arrived.read(0).captions == {"alt": ("x",)}
    assert arrived.label(0) == 0
