"""The group of embeddings, begun by several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from aimcore.encoders import embedding_store
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.encoders.stored_embeddings import OtherEmbeddings


def begun(url: Path) -> EmbeddingStore:
    return EmbeddingStore.begin(
        str(url), {"encoder": "one"}, {}, num_rows=5, shape=(4,), dtype="float32", rows_per_part=2
    )


def test_a_process_joins_a_group_that_another_one_begins_between_its_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, url, looks = embedding_store._opened, tmp_path / "out.zarr", []

    def opened(place: str) -> object:
        looks.append(place)
        found = look(place)
        if len(looks) == 1:
            monkeypatch.undo()
            begun(url)  # the other process
            monkeypatch.setattr(embedding_store, "_opened", opened)
        return found

    monkeypatch.setattr(embedding_store, "_opened", opened)
    assert begun(url).missing() == [0, 1, 2]
    assert len(looks) == 2


def test_what_else_is_there_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_store, "_SECONDS_BETWEEN_LOOKS", 0)
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(OtherEmbeddings, match="exists and holds no embeddings"):
        begun(tmp_path / "out.zarr")
    assert [path.name for path in (tmp_path / "out.zarr").iterdir()] == ["notes.txt"]
