"""Evaluation images that a filter finds by the features of an encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from filter_pools import captioned_folder, encoded, noise
from PIL import Image, ImageOps
from small_encoders import TOWERS, run_of
from torch import Tensor
from torch.nn.functional import normalize

from aimcore import Encoder, load_encoder
from aimcore.encoders.embedding import has_towers
from aimcore.run import command
from aimcore.running import evaluation_images
from aimcore.running.filter_steps import Filtering
from aimcore.running.source_filtering import filter_source
from aimcore_sources import CaptionedFolder, ImageFolder


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Samples a to h; c, e and g are changed evaluation images, which no hash finds, and b is one of them."""
    files = {
        "a.png": encoded(noise(1)),
        "b.png": encoded(noise(52)),
        "c.png": encoded(ImageOps.mirror(noise(52))),
        "d.png": b"broken",
        "e.png": encoded(noise(51).crop((4, 3, 70, 50))),
        "f.png": encoded(noise(3)),
        "g.png": encoded(ImageOps.mirror(noise(51))),
        "h.png": encoded(noise(4)),
    }
    (tmp_path / "eval").mkdir()
    for name, content in {"x": b"broken", "y": encoded(noise(51)), "z": encoded(noise(52))}.items():
        (tmp_path / "eval" / f"{name}.png").write_bytes(content)
    return captioned_folder(tmp_path / "pool", files)


def filtered(pool: Path, *options: str, out: str = "out-*.tar") -> int:
    return command(["data", "filter", str(pool), str(pool.parent / out), *options])


def report_of(pool: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pool.parent / "out.tar.filter.json").read_text(encoding="utf-8"))
    return found


def stem(identifier: str) -> str:
    return Path(identifier).stem


def features(encoder: Encoder, file: Path) -> Tensor:
    pixels_1CHW = encoder.transform(Image.open(file))[None]
    return (encoder.embed_images(pixels_1CHW) if has_towers(encoder) else encoder.pool(pixels_1CHW))[0]


def expected_similarities(encoder: Encoder, pool: Path) -> dict[str, tuple[float, str]]:
    """The largest similarity of each sample, and the name of that evaluation image."""
    evaluation = {name: features(encoder, pool.parent / "eval" / f"{name}.png") for name in "yz"}
    found = {}
    for name in "abcefgh":
        own_D = normalize(features(encoder, pool / f"{name}.png"), dim=0)
        found[name] = max((float(own_D @ normalize(other_D, dim=0)), like) for like, other_D in evaluation.items())
    return found


@pytest.mark.parametrize("is_two_towers", [False, True])
def test_images_with_similar_features_are_removed_and_the_nearest_evaluation_image_is_named(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_two_towers: bool
) -> None:
    run = run_of(tmp_path / "encoder", objective=TOWERS if is_two_towers else None)
    expected = expected_similarities(load_encoder(run), pool)
    del expected["b"]  # its hash is found first
    order = sorted(expected, key=lambda name: -expected[name][0])
    threshold = (expected[order[2]][0] + expected[order[3]][0]) / 2
    options = ["--against", str(tmp_path / "eval"), "--embeddings-by", str(run), "--similarity", str(threshold)]
    assert filtered(pool, *options) == 0
    report = report_of(pool)
    removed = {stem(one["identifier"]): one for one in report["removed"]}
    assert sorted(removed) == sorted(["b", "d", *order[:3]])
    assert removed["b"] == {
        "index": 1, "identifier": removed["b"]["identifier"], "reason": "evaluation", "rule": "hash",
        "source": str(tmp_path / "eval"), "like": removed["b"]["like"], "like_index": 2, "distance": 0,
    }  # fmt: skip
    for name in order[:3]:
        similarity, like = expected[name]
        assert (removed[name]["reason"], removed[name]["rule"]) == ("evaluation", "embedding")
        assert stem(removed[name]["like"]) == like
        assert removed[name]["like_index"] == "xyz".index(like)
        assert removed[name]["similarity"] == pytest.approx(similarity, abs=1e-5)
    found = report["similarities"]
    assert (found["num_compared"], found["num_removed"]) == (6, 3)
    assert [stem(one["identifier"]) for one in found["nearest_kept"]] == order[3:]
    assert found["nearest_kept"][0]["similarity"] == pytest.approx(expected[order[3]][0], abs=1e-5)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"similarities: 3 of 6 removed, from {threshold:.4f} up; the largest of those kept is" in shown
    assert "1 broken images were not compared with" in shown


def test_equal_images_have_the_similarity_one(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_images, "nearest_of", lambda some_n, _: (some_n.astype(int), some_n * 0 + 65))
    source = CaptionedFolder(url=str(pool)).open()
    filtering = Filtering(against=("eval",), embeddings_by="encoder", similarity=1.0)
    sets = {"eval": ImageFolder(url=str(tmp_path / "eval")).open()}
    encoder = load_encoder(run_of(tmp_path / "encoder"))
    found = filter_source(source, filtering, evaluation_sets=sets, embeddings_by=encoder)
    assert [(stem(one["identifier"]), one.get("similarity")) for one in found.removed] == [("b", 1.0), ("d", None)]


def test_the_nearest_of_several_evaluation_sets_is_named(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_images, "_AT_ONCE", 8)  # one evaluation image at a time
    for name, seed in {"first": 77, "second": 51, "third": 52}.items():
        captioned_folder(tmp_path / name, {"other.png": encoded(noise(78)), "one.png": encoded(noise(seed))})
    encoder = load_encoder(run_of(tmp_path / "encoder"))
    expected = expected_similarities(encoder, pool)
    sets = {name: CaptionedFolder(url=str(tmp_path / name)).open() for name in ("first", "second", "third")}
    filtering = Filtering(against=tuple(sets), embeddings_by="encoder", similarity=1.0)
    found = filter_source(CaptionedFolder(url=str(pool)).open(), filtering, evaluation_sets=sets, embeddings_by=encoder)
    assert found.similarities is not None
    nearest = {stem(one["identifier"]): one for one in found.similarities["nearest_kept"]}
    for name in "ceg":
        similarity, like = expected[name]
        assert nearest[name]["source"] == {"y": "second", "z": "third"}[like]
        assert (nearest[name]["like_index"], stem(nearest[name]["like"])) == (1, "one")
        assert nearest[name]["similarity"] == pytest.approx(similarity, abs=1e-5)


def test_an_encoder_of_both_embeddings_and_scores_gives_the_scores_that_it_gives_alone(
    pool: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(run_of(tmp_path / "towers", objective=TOWERS))
    source = CaptionedFolder(url=str(pool)).open()
    sets = {"eval": ImageFolder(url=str(tmp_path / "eval")).open()}
    scores: dict[str, Any] = {"scores_by": "towers", "keep": 1.0}
    alone = filter_source(source, Filtering(against=("eval",), **scores), evaluation_sets=sets, scores_by=encoder)
    both = filter_source(
        source, Filtering(against=("eval",), embeddings_by="towers", similarity=1.0, **scores), evaluation_sets=sets,
        scores_by=encoder, embeddings_by=encoder,
    )  # fmt: skip
    assert alone.scores is not None
    assert both.scores is not None
    assert [one["index"] for one in both.scores["best"]] == [one["index"] for one in alone.scores["best"]]
    for mine, other in zip(both.scores["best"], alone.scores["best"], strict=True):
        assert mine["score"] == pytest.approx(other["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--embeddings-by", "x", "--similarity", "0.9"], "embeddings-by: needs --against"),
        (["--against", "EVAL", "--embeddings-by", "x"], "similarity: give the cosine"),
        (["--against", "EVAL", "--similarity", "0.9"], "similarity: needs --embeddings-by"),
        (["--against", "EVAL", "--embeddings-by", "x", "--similarity", "-1"], "above -1 and at most 1, got -1"),
        (["--against", "EVAL", "--embeddings-by", "x", "--similarity", "1.01"], "above -1 and at most 1, got 1.01"),
        (["--against", "EVAL", "--embeddings-by", "x", "--similarity", "nan"], "not finite"),
        (["--against", "EVAL", "--embeddings-by", "NOWHERE", "--similarity", "0.9"], "NOWHERE"),
        (
            [
                "--against",
                "EVAL",
                "--embeddings-by",
                "x",
                "--similarity",
                "0.9",
                "--scores-by",
                "y",
                "--num-heads",
                "2",
            ],
            "belongs to one of two encoders",
        ),
        (["--against", "EMPTY", "--embeddings-by", "ENCODER", "--similarity", "0.9"], "EMPTY"),
        (["--against", "BROKEN", "--embeddings-by", "ENCODER", "--similarity", "0.9"], "none of the 1 images of"),
        (["--against", "BROKEN"], "none of the 1 images of"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    options: list[str], message: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EMPTY", "BROKEN"):
        (tmp_path / name).mkdir()
    (tmp_path / "BROKEN" / "x.png").write_bytes(b"broken")
    places = {"EVAL": str(tmp_path / "eval"), "EMPTY": str(tmp_path / "EMPTY"), "BROKEN": str(tmp_path / "BROKEN")}
    if "ENCODER" in options:
        places["ENCODER"] = str(run_of(tmp_path / "encoder"))
    assert filtered(pool, *[places.get(option, option) for option in options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("*.json"))


def test_features_that_are_not_numbers_are_refused(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_images, "features_of", lambda *_: torch.full((2, 3), torch.nan))
    options = ["--against", str(tmp_path / "eval"), "--embeddings-by", str(run_of(tmp_path / "encoder"))]
    assert filtered(pool, *options, "--similarity", "0.9") == 2
    assert "y.png features that are not numbers" in " ".join(capsys.readouterr().err.split())
