"""What is planted in a pool of images, and how the judge counts what was found."""

import io
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import data_at_scale

        yield data_at_scale
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def images(benchmark):
    return sys.modules[benchmark.write_pool.__module__]


def test_every_kind_is_planted_by_its_share_and_copies_are_of_samples_with_nothing_planted(images):
    planned = images.plan(2000, 200)
    counts = Counter(kind for kind, _ in planned)
    shares = {**images.COPIES, **images.TEST_IMAGES, **images.FLAWS}
    assert {kind: counts[kind] for kind in shares} == {kind: round(2000 * share) for kind, share in shares.items()}
    originals = [of for kind, of in planned if kind in images.COPIES]
    assert {planned[of][0] for of in originals} == {images.PLAIN}
    tests = [of for kind, of in planned if kind in images.TEST_IMAGES]
    for some in (originals, tests):
        assert len(set(some)) == len(some)


def test_planted_files_have_the_pixels_that_their_kind_says(images):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    pixels = np.asarray(picture)
    found = {
        kind: np.asarray(Image.open(io.BytesIO(images.changed(picture, kind))))
        for kind in (*images.COPIES, *images.TEST_IMAGES)
    }
    for kind in ("equal pixels", "test image"):
        assert np.array_equal(found[kind], pixels)
    assert np.array_equal(found["test image mirrored"], pixels[:, ::-1])
    assert found["copy of twice the size"].shape == (64, 64, 3)
    assert all(not np.array_equal(found[kind], pixels) for kind in ("JPEG copy", "test image as JPEG"))


def test_the_judge_counts_what_was_found(benchmark, images, tmp_path):
    planted = [
        images.Planted(images.PLAIN, -1, "red bag on black"),
        images.Planted("broken file", -1, ""),
        images.Planted("equal pixels", 0, "red bag on black"),
        images.Planted("test image mirrored", 7, "blue coat on navy"),
        images.Planted("wrong caption", -1, "pink shirt on olive"),
    ]
    exact = [{"samples": [{"index": 0}, {"index": 2}]}]
    (tmp_path / "inspected.json").write_text(json.dumps({"broken": [{"index": 1}], "duplicates": {"exact": exact}}))
    # The broken file was left out of what is filtered.
    removed = [
        {"index": 1, "reason": "duplicate", "like_index": 0},
        {"index": 2, "reason": "evaluation", "rule": "embedding", "like_index": 7},
    ]
    (tmp_path / "train.tar.filter.json").write_text(json.dumps({"num_samples": 4, "removed": removed}))
    captions = [{"identifier": "0", "captions": ["red bag on black"]}, {"identifier": "4", "captions": ["pink coat"]}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    lines = list(benchmark.judged(tmp_path, planted))
    assert "equal pixels: 1 pairs planted, 1 found by inspect, in 1 groups" in lines
    assert "equal pixels: 1; 1 duplicate" in lines
    assert "equal pixels: of 0 pairs both are kept" in lines
    assert "test image mirrored: 1; 1 evaluation by embedding" in lines
    assert "test image mirrored: 1 are removed with the test image that was planted" in lines
    assert "wrong caption: 1; 1 kept" in lines
    assert "captions: 50.0% are right in every word, 100.0% in the colour" in lines
