"""Filtering of sources: which samples are kept is known by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_pools import captioned_folder, encoded, noise
from PIL import Image
from small_encoders import TOWERS, run_of

from aimcore import Encoder, InvalidValue, load_encoder
from aimcore.run import command
from aimcore.running import filter_report
from aimcore.running.filter_steps import Filtering, NothingLeft
from aimcore.running.source_filtering import best, filter_source, num_kept, stand_ins
from aimcore_sources import CaptionedFolder

ROW = np.dtype([("index", "i8"), ("hash", "u8"), ("digest", "u8")])


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Eight samples, in the order of their names: see the comments."""
    files = {
        "a.png": encoded(noise(1)),  # kept
        "b.png": encoded(noise(2)),  # an evaluation image
        "c.png": b"broken",
        "d.bmp": encoded(noise(1), "BMP"),  # equal to a
        "e.jpg": encoded(noise(1, (140, 100)), "JPEG"),  # a, larger and compressed
        "f.png": encoded(noise(2)),  # the evaluation image again
        "g.png": encoded(Image.new("RGB", (20, 20), (9, 9, 9))),  # kept
        "h.png": encoded(Image.new("RGB", (20, 20), (200, 9, 9))),  # kept: of one colour, but another one
        "i.png": encoded(Image.new("RGB", (20, 20), (9, 9, 9))),  # equal to g
    }
    captioned_folder(tmp_path / "pool", files)
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "test.png").write_bytes(encoded(noise(2, (100, 72))))
    (tmp_path / "eval" / "bad.png").write_bytes(b"broken")
    return tmp_path / "pool"


def filtered(pool: Path, *options: str, out: str = "out-*.tar") -> int:
    return command(["data", "filter", str(pool), str(pool.parent / out), *options])


def report_of(pool: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pool.parent / "out.tar.filter.json").read_text(encoding="utf-8"))
    return found


def stem(identifier: str) -> str:
    return Path(identifier).stem


def test_duplicates_evaluation_images_and_broken_files_are_removed_and_named(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = pool.parent / "eval"
    assert filtered(pool, "--deduplicate", "--against", str(evaluation), "--hash-distance", "3") == 0
    report = report_of(pool)
    removed = {stem(one["identifier"]): one for one in report["removed"]}
    assert {name: one["reason"] for name, one in removed.items()} == {
        "b": "evaluation", "c": "broken", "d": "duplicate", "e": "duplicate", "f": "evaluation", "i": "duplicate",
    }  # fmt: skip
    assert {name: stem(one["like"]) for name, one in removed.items() if "like" in one} == {
        "b": "test", "f": "test", "d": "a", "e": "a", "i": "g",
    }  # fmt: skip
    assert report["num_removed"] == {"broken": 1, "evaluation": 2, "duplicate": 3}
    assert (report["num_samples"], report["num_kept"]) == (9, 3)
    assert report["evaluation_sets"] == {str(evaluation): {"num_samples": 2, "num_broken": 1}}
    shown = capsys.readouterr().out
    assert "removed: 3 duplicate" in shown
    assert "1 broken images were not compared with" in shown
    recipe = json.loads(shown.splitlines()[-1])
    written = filter_report.source_named(json.dumps(recipe)).open()
    texts = [written.read(index).captions["alt"] for index in range(len(written))]
    assert texts == [("a.png text",), ("g.png text",), ("h.png text",)]


def test_a_dry_run_writes_the_report_and_the_next_call_uses_it(
    pool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filtered(pool, "--deduplicate", "--dry-run") == 0
    assert list(pool.parent.glob("out-*")) == []
    before = (pool.parent / "out.tar.filter.json").read_bytes()
    assert filtered(pool, "--deduplicate", "--hash-distance", "9") == 2
    assert "is not the report of this command" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr(filter_report, "filter_source", None)
    assert filtered(pool, "--deduplicate") == 0
    assert len(list(pool.parent.glob("out-*.tar"))) == 1
    assert (pool.parent / "out.tar.filter.json").read_bytes() == before
    assert filtered(pool, "--deduplicate") == 2
    assert "nothing is overwritten" in capsys.readouterr().err.replace("\n", " ")


def test_a_report_of_another_number_of_samples_is_refused(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert filtered(pool, "--deduplicate", "--dry-run") == 0
    lines = (pool / "captions.jsonl").read_text().splitlines()
    (pool / "captions.jsonl").write_text("\n".join(lines[:-1]))
    assert filtered(pool, "--deduplicate") == 2
    assert "has 8 now" in capsys.readouterr().err.replace("\n", " ")


def test_the_samples_with_the_best_scores_are_kept(pool: Path, tmp_path: Path) -> None:
    """The scores are those that ``zero_shot`` gives of one image and one text, before its scale."""
    run = run_of(tmp_path / "towers", objective=TOWERS)
    (pool / "j.png").write_bytes(encoded(noise(5)))
    with (pool / "captions.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file": "j.png", "captions": {"other": ["no alt"]}}))
    encoder, source = load_encoder(run), CaptionedFolder(url=str(pool)).open()
    expected = {}
    for index in [0, 1, *range(3, 9)]:
        sample = source.read(index)
        image_E = encoder.embed_images(encoder.transform(sample.image)[None])[0]
        expected[stem(sample.identifier)] = float(image_E @ encoder.embed_texts([sample.captions["alt"][0]])[0])
    assert filtered(pool, "--scores-by", str(run), "--keep", "0.3", "--caption", "alt") == 0
    report = report_of(pool)
    removed = {stem(one["identifier"]): one for one in report["removed"]}
    order = sorted(expected, key=lambda name: -expected[name])
    # 8 of 10 samples have a score, and 0.3 of 8 is 2.4.
    assert sorted(removed) == sorted([*order[3:], "c", "j"])
    assert (removed["c"]["reason"], removed["j"]["reason"]) == ("broken", "no caption")
    for name in order[3:]:
        assert removed[name]["score"] == pytest.approx(expected[name], abs=1e-5)
    assert report["scores"]["threshold"] == pytest.approx(expected[order[2]], abs=1e-5)
    assert (report["scores"]["num_scored"], report["scores"]["num_kept"]) == (8, 3)

    middle = (expected[order[4]] + expected[order[5]]) / 2
    filtering = Filtering(scores_by="towers", min_score=middle, caption="alt")
    found = filter_source(source, filtering, evaluation_sets={}, scores_by=encoder)
    assert sorted(stem(source.read(int(index)).identifier) for index in found.kept_n) == sorted(order[:5])
    with pytest.raises(NothingLeft, match="8 low score"):
        filter_source(
            source, Filtering(scores_by="towers", min_score=1.0, caption="alt"), evaluation_sets={}, scores_by=encoder
        )


def test_scores_are_those_of_samples_that_earlier_steps_have_kept(pool: Path, tmp_path: Path) -> None:
    encoder, source = load_encoder(run_of(tmp_path / "towers", objective=TOWERS)), CaptionedFolder(url=str(pool)).open()
    filtering = Filtering(deduplicate=True, hash_distance=3, scores_by="towers", keep=0.5)
    found = filter_source(source, filtering, evaluation_sets={}, scores_by=encoder)
    assert found.counts() == {"broken": 1, "duplicate": 4, "low score": 2}  # of a, b, g and h
    assert found.scores is not None
    assert found.scores["num_scored"] == 4


def test_shares_are_rounded_up_and_of_equal_scores_the_first_are_kept() -> None:
    assert [num_kept(100, share) for share in (0.07, 0.29, 0.291, 1.0)] == [7, 29, 30, 100]
    assert best(np.array([1.0, 2.0, 1.0, 1.0, 3.0]), 3).tolist() == [True, True, False, False, True]


def test_a_group_is_connected_by_neighbours_and_its_first_sample_stands_for_it() -> None:
    # 0b0000_0111 and 0b0001_1111 differ in 2 bits, as 0b0001_1111 and 0b0111_1111 do.
    hashes = [2**40, 0b0111_1111, 0, 0b0000_0111, 0b0001_1111, 0, 0b0111_1111, 0]
    digests = [1, 2, 3, 4, 5, 6, 2, 3]
    rows_n = np.array(list(zip(range(8), hashes, digests, strict=True)), dtype=ROW)
    assert stand_ins(rows_n, 2).tolist() == [0, 1, 2, 1, 1, 5, 1, 2]
    assert stand_ins(rows_n, 0).tolist() == [0, 1, 2, 3, 4, 5, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing would be removed"),
        (["--keep", "0.5", "--deduplicate"], "needs --scores-by"),
        (["--num-heads", "4", "--deduplicate"], "num-heads: needs --scores-by"),
        (["--hash-distance", "3", "--scores-by", "x"], "needs --against or --deduplicate"),
        (["--deduplicate", "--hash-distance", "65"], "must lie between 0 and 64"),
        (["--scores-by", "x", "--keep", "0"], "must be above 0"),
        (["--scores-by", "x", "--min-score", "nan"], "not finite"),
        (["--scores-by", "x", "--min-score", "2"], "must lie between -1 and 1"),
        (["--deduplicate", "--workers", "-1"], "workers: must be at least 0"),
    ],
)
def test_settings_are_refused_before_anything_is_read(
    options: list[str], message: str, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert filtered(pool, *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(pool.parent.glob("*.json")) == []


def test_what_the_file_of_the_towers_does_not_say_can_be_given(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers, given = run_of(tmp_path / "towers", objective=TOWERS), []

    def opened(url: str, **settings: object) -> Encoder:
        given.append((url, settings))
        return load_encoder(towers)

    monkeypatch.setattr(filter_report, "load_encoder", opened)
    options = ["--scores-by", "x", "--num-heads", "4", "--layout", "lit", "--preprocessing", "clip"]
    assert filtered(pool, *options, "--dry-run") == 0
    assert given == [("x", {"num_heads": 4, "layout": "lit", "preprocessing": "clip"})]


def test_an_encoder_without_a_text_tower_is_refused(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"has no text tower: give an encoder .* \(LiT, CLIP, SigLIP\)"):
        filter_report.choose(
            CaptionedFolder(url=str(pool)), CaptionedFolder(url=str(tmp_path / "out")),
            Filtering(scores_by=str(run_of(tmp_path / "trunk")), keep=0.5),
        )  # fmt: skip


def test_a_report_within_the_source_is_refused(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["data", "filter", str(pool), str(pool / "out.zarr"), "--deduplicate", "--dry-run"]) == 2
    assert "would be read as a part of the source" in " ".join(capsys.readouterr().err.split())
    assert not list(pool.glob("*.json"))
