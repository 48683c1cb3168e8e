"""``aimcore search`` as a person meets it: neighbours by hand, texts for two towers only, and the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity
from trained_runs import captioning_experiment, write_run

from aimcore import load_encoder
from aimcore.encoders import embedding
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.encoders.search import CannotSearch, nearest
from aimcore.encoders.stored_embeddings import EmbeddedRows
from aimcore.run import command
from aimcore_objectives import Contrastive
from aimcore_objectives.towers import TextTower
from aimcore_tokenizers import Bytes
from aimcore_trunks import ViT


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def store(folder: Path, vectors: list[list[float]], rows_per_part: int) -> EmbeddingStore:
    made = EmbeddingStore.begin(
        str(folder), {"a": 1}, {}, num_rows=len(vectors), shape=(2,), dtype="float32", rows_per_part=rows_per_part
    )
    for part in range(made.num_parts):
        rows = np.array(vectors[part * rows_per_part : (part + 1) * rows_per_part], dtype=np.float32)
        number, is_readable = len(rows), np.isfinite(rows[:, 0])
        names = [f"{part}-{place}" for place in range(number)]
        zeros = np.zeros((number, 2), dtype=np.int32)
        made.write(part, EmbeddedRows(rows, np.full(number, part), zeros, is_readable, names))
    made.finish()
    return EmbeddingStore.open(str(folder))


def test_neighbours_are_those_of_the_smallest_angle(tmp_path: Path) -> None:
    opened = store(tmp_path / "x.zarr", [[0, 9], [1, 1], [np.nan, np.nan], [5, 0.1], [-1, 0], [2, 2]], rows_per_part=2)
    found = nearest(opened, np.array([3.0, 0.0], dtype=np.float32), 3)
    # The angles to (1, 0) are 90, 45, unreadable, 1.1, 180 and 45 degrees; of equals, the first row comes first.
    assert [one.row for one in found] == [3, 1, 5]
    assert [one.identifier for one in found] == ["1-1", "0-1", "2-1"]
    assert found[1].similarity == pytest.approx(0.5**0.5)
    with pytest.raises(CannotSearch, match="the query has 3 numbers"):
        nearest(opened, np.zeros(3, dtype=np.float32), 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(5):
        place = tmp_path / "pictures" / ("cats" if number < 3 else "dogs") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place)
    return tmp_path / "pictures"


@pytest.fixture
def towers(tmp_path: Path) -> str:
    objective = Contrastive(
        text_tower=TextTower(width=16, depth=1, num_heads=2), tokenizer=Bytes(), context_length=8, embedding_width=8,
        num_pool_heads=2,
    )  # fmt: skip
    trunk = ViT(width=16, depth=1, num_heads=2, patch_size=8)
    write_run(tmp_path / "clip", captioning_experiment(objective, trunk=trunk), step=2)
    return str(tmp_path / "clip")


def test_images_and_texts_are_searched_for_in_the_space_of_two_towers(
    towers: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, page = str(tmp_path / "out.zarr"), tmp_path / "found.html"
    assert command(["embed", towers, str(folder), out]) == 0
    capfd.readouterr()
    assert command(["search", out, str(folder / "dogs/4.png"), "--num", "3", "--page", str(page)]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines() if ".png" in line]
    assert lines[0] == ["1.000", "dogs/4.png", "dogs"]
    text = page.read_text()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 4  # the query and three neighbours
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)

    assert command(["search", out, "a cat", "--num", "5", "--page", str(page)]) == 0
    encoder = load_encoder(towers)
    pixels = torch.stack([encoder.transform(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
    expected = cosine_similarity(encoder.embed_images(pixels), encoder.embed_texts(["a cat"]))
    order = expected.argsort(descending=True).tolist()
    lines = [line.split() for line in capfd.readouterr().out.splitlines() if ".png" in line]
    assert [line[1].rpartition("/")[2] for line in lines] == [f"{number}.png" for number in order]
    assert float(lines[0][0]) == pytest.approx(float(expected.max()), abs=2e-3)


def test_a_parquet_file_is_searched_by_row_groups_like_a_group(
    towers: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 2)
    (folder / "cats/1.png").write_bytes(b"not an image")  # its features are null
    said, pages = [], []
    for out in (tmp_path / "out.zarr", tmp_path / "out.parquet"):
        assert command(["embed", towers, str(folder), str(out), "--batch-size", "2"]) == 0
        capfd.readouterr()
        for query in (str(folder / "dogs/4.png"), "a cat"):
            assert command(["search", str(out), query, "--page", str(tmp_path / "found.html")]) == 0
            said.append([line for line in capfd.readouterr().out.splitlines() if ".png" in line])
        pages.append((tmp_path / "found.html").read_text().replace(str(out), "OUT"))
    assert said[:2] == said[2:]
    assert [len(lines) for lines in said] == [4] * 4
    assert pages[0] == pages[1]
    file = pyarrow.parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups == 3
    place = file.metadata.row_group(1).column(4).data_page_offset
    content = bytearray((tmp_path / "out.parquet").read_bytes())
    content[place : place + 40] = bytes(40)
    (tmp_path / "damaged.parquet").write_bytes(content)
    assert command(["search", str(tmp_path / "damaged.parquet"), "a cat"]) == 2
    assert "damaged.parquet' is damaged" in capfd.readouterr().err
    assert command(["search", str(tmp_path / "other.parquet"), "a cat"]) == 2
    assert "other.parquet' has no embeddings" in capfd.readouterr().err


def test_what_cannot_be_searched_for_is_refused(
    towers: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "plain", captioning_experiment(), step=2)
    out, plain = str(tmp_path / "out.zarr"), str(tmp_path / "plain")
    assert command(["embed", plain, str(folder), out]) == 0
    refused = {
        "texts cannot be searched for": ["search", out, "a cat"],
        "with a text tower (LiT, CLIP, SigLIP) and --pool joint": ["search", out, "a cat"],
        "is not the encoder of": ["search", out, str(folder / "cats/0.png"), "--encoder", towers],
        "cannot read": ["search", out, "nowhere.png"],
        "has no embeddings": ["search", str(tmp_path / "other.zarr"), "a cat"],
        "must be at least 1": ["search", out, "a cat", "--num", "0"],
    }
    for message, words in refused.items():
        capfd.readouterr()
        assert command(words) == 2
        assert message in " ".join(capfd.readouterr().err.split())


def test_a_picture_of_another_image_is_not_shown(
    towers: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(["embed", towers, str(folder), str(tmp_path / "out.zarr")]) == 0
    (folder / "cats/0.png").rename(folder / "dogs/9.png")
    query, page = str(folder / "cats/1.png"), tmp_path / "found.html"
    assert command(["search", str(tmp_path / "out.zarr"), query, "--num", "5", "--page", str(page)]) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "the picture of 'cats/1.png' is not shown: the source has 'cats/2.png' in its place now" in said
    assert page.read_text().count("<img") == 1  # the query


def test_an_encoder_that_was_moved_is_asked_for(
    towers: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(["embed", towers, str(folder), str(tmp_path / "out.zarr")]) == 0
    Path(towers).rename(tmp_path / "moved")
    assert command(["search", str(tmp_path / "out.zarr"), "a cat"]) == 2
    assert "it is the encoder of" in capfd.readouterr().err
    words = ["a cat", "--encoder", str(tmp_path / "moved"), "--page", str(tmp_path / "found.html")]
    assert command(["search", str(tmp_path / "out.zarr"), *words]) == 0
