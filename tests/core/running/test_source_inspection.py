"""Inspections of sources: every number is known by hand, and nothing depends on the number of workers."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aimcore import InvalidValue, OpenSource, Sample, UnreadableSample
from aimcore.contracts.errors import DataNotFound
from aimcore.data.streaming import Loader
from aimcore.report import inspection_page
from aimcore.run import command
from aimcore.running import source_inspection
from aimcore.running.source_inspection import Spread, inspect_source
from aimcore.running.source_measurements import Chunks, joined
from aimcore_sources import ImageFolder

DIGITS = "0123456789"


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Large patches of random colours, so that a JPEG of it has almost the same pixels."""
    colours_HWC = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(colours_HWC).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of two classes, of which two are equal, two are similar, and one has one colour; two broken ones."""
    original = encoded(noise(70, 50, 1))
    files = {
        "cat/a.png": original,
        "cat/b.png": encoded(noise(64, 32, 2)),
        "cat/copy.bmp": encoded(noise(70, 50, 1), "BMP"),
        "cat/empty.png": b"",
        "cat/half.jpg": encoded(noise(64, 64, 3), "JPEG")[:600],
        "dog/again.png": original,
        "dog/grey.png": encoded(Image.new("L", (20, 90), 7)),
        "dog/similar.jpg": encoded(noise(140, 100, 1), "JPEG", quality=60),
        "dog/white.png": encoded(Image.new("RGBA", (30, 30), (255, 255, 255, 0))),
    }
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "dog" / "notes.txt").write_text("not an image")
    return tmp_path / "in"


def found_in(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    status = command(["data", "inspect", str(folder), "--json", *options])
    return status, json.loads(capsys.readouterr().out)


def names_of(groups: list[dict[str, Any]]) -> list[list[str]]:
    return [[sample["identifier"] for sample in group["samples"]] for group in groups]


def test_everything_that_was_planted_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = found_in(folder, capsys)
    assert status == 1  # two are broken
    assert (found["num_samples"], found["num_broken"], found["num_unlabelled"]) == (9, 2, 0)
    assert [(one["name"], one["num_samples"]) for one in found["classes"]] == [("cat", 3), ("dog", 4)]
    assert [one["identifier"] for one in found["broken"]] == ["cat/empty.png", "cat/half.jpg"]
    assert found["broken"][0]["cause"].startswith("the file is empty")
    assert found["left_out"] == {"files of other kinds (.txt)": 1}
    assert found["files"]["forms"] == {"PNG RGB": 3, "BMP RGB": 1, "PNG L": 1, "JPEG RGB": 1, "PNG RGBA": 1}
    assert found["num_without_contrast"] == 2
    # Equal pixels in files of different formats; of them, only the first is compared with the similar one.
    assert names_of(found["duplicates"]["exact"]) == [["cat/a.png", "cat/copy.bmp", "dog/again.png"]]
    assert names_of(found["duplicates"]["near"]) == [["cat/a.png", "dog/similar.jpg"]]
    assert found["duplicates"]["exact"][0]["other_labels"]
    assert command(["data", "inspect", str(folder)]) == 1
    printed = capsys.readouterr().out
    for text in ("9 samples, 2 classes, 2 broken", "cat/empty.png: the file is empty", "(different classes)"):
        assert text in printed


def test_sizes_are_those_of_the_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = found_in(folder, capsys)[1]["sizes"]
    # Widths 20 30 64 70 70 70 140, heights 30 32 50 50 50 90 100, pixels 900 1800 2048 3500 3500 3500 14000.
    assert sizes["width"] == {"minimum": 20, "median": 70, "maximum": 140}
    assert sizes["height"] == {"minimum": 30, "median": 50, "maximum": 100}
    assert sizes["pixels"] == {"minimum": 900, "median": 3500, "maximum": 14000}
    assert sizes["aspect"] == pytest.approx({"minimum": 2 / 9, "median": 1.4, "maximum": 2})
    assert {what: one["identifier"] for what, one in sizes["extremes"].items()} == {
        "smallest": "dog/white.png", "largest": "dog/similar.jpg", "widest": "cat/b.png", "tallest": "dog/grey.png",
    }  # fmt: skip
    assert sizes["frequent"][0] == {"width": 70, "height": 50, "num_samples": 3}


def test_captions_are_counted_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, lines = tmp_path / "in", list[str]()
    folder.mkdir()
    for number, captions in enumerate([{"alt": "one"}, {"alt": ["two words", ""]}, {"long": "now three words"}, {}]):
        (folder / f"{number}.png").write_bytes(encoded(noise(9, 9, number)))
        lines.append(json.dumps({"file": f"{number}.png", "captions": captions}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    status, found = found_in(folder, capsys)
    assert status == 0
    assert found["num_unlabelled"] == 4
    assert found["captions"]["alt"] == {
        "num_samples": 2,
        "num_captions": 3,
        "characters": {"minimum": 0, "median": 3, "maximum": 9},
        "words": {"minimum": 0, "median": 1, "maximum": 2},
    }
    assert found["captions"]["long"]["num_samples"] == 1


def test_chunks_and_other_processes_change_nothing(folder: Path) -> None:
    source = ImageFolder(url=str(folder)).open()
    whole, (chunks,) = Chunks(source)[0], pickle.loads(pickle.dumps([Chunks(source, 2)]))
    assert len(chunks) == 5  # of nine samples
    parts = joined([pickle.loads(pickle.dumps(chunks[number])) for number in range(len(chunks))])
    np.testing.assert_array_equal(parts.rows_n, whole.rows_n)
    assert len(parts.rows_n) == 7
    for name in ("identifiers", "captions", "forms", "num_bytes", "broken"):
        assert getattr(parts, name) == getattr(whole, name)


def test_near_duplicates_have_at_most_the_chosen_number_of_other_bits(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cat" / "b.jpg").write_bytes(encoded(noise(64, 32, 2), "JPEG", quality=2))
    found = found_in(folder, capsys, "--near", "0")[1]
    assert ["cat/b.jpg", "cat/b.png"] not in names_of(found["duplicates"]["near"])
    found = found_in(folder, capsys, "--near", "24")[1]
    assert any({"cat/b.jpg", "cat/b.png"} <= set(group) for group in names_of(found["duplicates"]["near"]))


class Broken(OpenSource):
    """A source whose samples cannot be read."""

    def __len__(self) -> int:
        return 3

    def read(self, index: int) -> Sample:
        raise UnreadableSample(DIGITS[index], "it is broken")


class Pixels(Broken):
    """A source of different pixels without files, in equal bytes."""

    def read(self, index: int) -> Sample:
        shape = [(1, 2, 8), (1, 4, 4), (4, 2, 2)][index]
        return Sample(torch.arange(16, dtype=torch.uint8).reshape(shape), DIGITS[index])


def test_a_source_without_one_readable_sample_is_described_too(tmp_path: Path) -> None:
    found = inspect_source(Broken())
    assert [one.identifier for one in found.measured.broken] == ["0", "1", "2"]
    assert (found.num_read, found.exact, found.near, found.spreads(), found.extremes()) == (0, [], [], {}, {})
    inspection_page.write_inspection_page(found, Broken(), "broken", tmp_path / "page.html")
    assert "No sample could be read." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_equal_bytes_of_other_shapes_are_no_duplicates() -> None:
    found = inspect_source(Pixels())
    assert found.exact == []
    assert found.measured.forms == {"pixels, 1 channel": 2, "pixels, 4 channels": 1}
    assert found.measured.num_bytes == 0


def test_medians_of_even_numbers_are_in_the_middle() -> None:
    assert Spread.of({2: 1, 8: 1}) == Spread(2, 5, 8)
    assert Spread.of({8: 3, 2: 1}) == Spread(2, 8, 8)
    assert Spread.of({4: 1}) == Spread(4, 4, 4)


def test_numbers_and_places_are_refused_before_anything_is_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Loader[object]:
        raise AssertionError("the source was read")

    monkeypatch.setattr(source_inspection, "stream", read)
    for arguments, message in (
        (["--workers", "-1"], "workers: must be at least 0, got -1"),
        (["--near", "65"], "near: must lie between 0 and 64, got 65"),
        (["--sample", "0"], "sample: must be at least 1, got 0"),
        (["--page", str(tmp_path)], str(tmp_path)),
    ):
        assert command(["data", "inspect", str(folder), *arguments]) == 2
        assert message in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(InvalidValue, match="near"):
        inspect_source(Broken(), most_bits=-1)


def test_a_source_without_samples_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "__len__", lambda _: 0)
    with pytest.raises(DataNotFound, match="no samples"):
        inspect_source(Broken())


def test_the_page_shows_a_fixed_random_sample_of_each_class_and_the_duplicates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        assert found_in(folder, capsys, "--page", str(page), "--sample", "2")[0] == 1
    text = pages[0].read_text(encoding="utf-8")
    assert text == pages[1].read_text(encoding="utf-8")
    for shown in ("cat: 2 of 3", "dog: 2 of 4", "cat/half.jpg", "of different classes", "1 group of 3 samples"):
        assert shown in text
    # 4 extreme sizes, a group of 3, a group of 2, and 2 of each class.
    assert text.count("<img") == 4 + 3 + 2 + 4


def test_a_page_of_very_many_classes_shows_fewer_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection_page, "MOST_PICTURES", 1)
    found_in(folder, capsys, "--page", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "cat: 1 of 3" in text
    assert "More classes that are not shown: 1." in text
