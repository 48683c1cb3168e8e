"""ONNX graphs give the outputs of the encoder, for any number of images, and for any grid where positions are fixed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from small_encoders import SINCOS, TEXTS, TOWERS, TRUNK, run_of
from small_towers import SIZES, clip, siglip
from torch import Tensor
from transformers import AutoTokenizer

from aimcore import load_encoder
from aimcore.encoders import onnx_graphs
from aimcore.encoders.export import export_encoder, require_possible

onnxruntime = pytest.importorskip("onnxruntime")


def outputs(path: Path, **given: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {name: one.numpy() for name, one in given.items()})]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_near(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_refusal_of_torch_is_reported_by_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("\x1b[96mThis is step 1/3\x1b[0m of many") from ValueError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(onnx_graphs.NotInONNX, match=r"as an ONNX graph: ValueError: no such operator$"):
        export_encoder(load_encoder(str(run_of(tmp_path, SINCOS))), tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def test_fixed_positions_read_any_number_of_images_of_any_grid(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, SINCOS)))
    export_encoder(encoder, tmp_path / "out", "onnx")
    for batch, height, width in [(1, 24, 40), (3, 24, 40), (5, 16, 72), (2, 8, 8)]:
        pixels = noise(batch, 3, height, width)
        tokens, pooled = outputs(tmp_path / "out" / "model.onnx", images=pixels)
        assert_near(tokens, encoder.features(pixels))
        assert_near(pooled, encoder.pool(pixels))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    stated = session.get_modelmeta().custom_metadata_map
    preprocessing = json.loads(stated["preprocessing"])
    assert (preprocessing["resize_short_side"], preprocessing["center_crop"]) == (64, 32)  # the crop is 0.5
    assert preprocessing["mean"] == list(encoder.known_preprocessing.preprocessing.mean)
    assert stated["source_sha256"] == encoder.source.sha256


def test_both_towers_are_two_graphs_with_learned_positions_and_any_number_of_rows(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, TRUNK, TOWERS)))
    export_encoder(encoder, tmp_path / "out", "onnx")
    for batch in (1, 4):
        pixels = noise(batch, 3, 32, 32)
        tokens, pooled, embedding = outputs(tmp_path / "out" / "model.onnx", images=pixels)
        assert_near(tokens, encoder.features(pixels))
        assert_near(pooled, encoder.pool(pixels))
        assert_near(embedding, encoder.embed_images(pixels))
    ids_BT = TOWERS.tokenizer.encode(TEXTS, 9).ids_BT
    for length, rows in [(9, 4), (9, 1), (5, 2)]:
        (embedding,) = outputs(tmp_path / "out" / "text.onnx", ids=ids_BT[:rows, :length])
        assert_near(embedding, encoder.embed_texts(ids_BT[:rows, :length]))
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_both_towers_of_clip_are_written_with_the_norm_of_its_trunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "num_hidden_layers", 1)
    clip(tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    export_encoder(encoder, tmp_path / "out", "onnx")
    pixels = noise(3, 3, 16, 16)
    assert_near(outputs(tmp_path / "out" / "model.onnx", images=pixels)[2], encoder.embed_images(pixels))
    ids_BT = AutoTokenizer.from_pretrained(tmp_path / "out")(["a cat", "dog"], return_tensors="pt", padding=True)
    (embedding,) = outputs(tmp_path / "out" / "text.onnx", ids=ids_BT["input_ids"])
    assert_near(embedding, encoder.embed_texts(["a cat", "dog"]))


@torch.no_grad()
def test_both_towers_of_siglip_are_written_with_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "num_hidden_layers", 1)
    siglip(tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    export_encoder(encoder, tmp_path / "out", "onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids_BT = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    (embedding,) = outputs(tmp_path / "out" / "text.onnx", ids=ids_BT)
    assert_near(embedding, encoder.embed_texts(TEXTS))
    pixels = noise(3, 3, 16, 16)
    assert_near(outputs(tmp_path / "out" / "model.onnx", images=pixels)[-1], encoder.embed_images(pixels))


def test_a_missing_library_is_reported_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(onnx_graphs.MissingONNX, match=r"pip install 'aimcore\[onnx\]'"):
        require_possible(tmp_path / "out", "onnx")
