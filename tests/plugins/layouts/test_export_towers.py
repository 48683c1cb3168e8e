"""CLIP and SigLIP go back to folders of transformers: equal tensors, equal outputs, equal ids."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from small_encoders import run_of
from small_towers import MAKERS, SIZES, TEXTS, clip, siglip, stirred

from aimcore import Encoder, load_encoder
from aimcore.encoders.export import CannotExport, export_encoder

MARKED = [*TEXTS, "A cat, of a dog!", "cat-dog " * 9, "é", "dog 🐕 cat\u3000a"]  # the sixth is cut


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def picture() -> Image.Image:
    """16 px, as large as the models read."""
    return Image.frombytes("RGB", (16, 16), bytes((37 * place) % 251 for place in range(16 * 16 * 3)))


@torch.no_grad()
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_transformers_opens_the_exported_towers_with_equal_outputs(family: str, tmp_path: Path) -> None:
    MAKERS[family](tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    export_encoder(encoder, tmp_path / "out", "transformers")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "out")]
    assert configs[0] == configs[1]
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == {"clip": "CLIPModel", "siglip": "SiglipModel"}[family]
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    given = processor(
        images=picture(), text=MARKED, padding="max_length", truncation=True, return_tensors="pt"
    )  # fmt: skip
    assert encoder.objective is not None
    assert encoder.objective.text is not None
    assert torch.equal(given["input_ids"], encoder.objective.text[0].encode(MARKED, 9).ids_BT)
    assert ("attention_mask" in given) == (family == "clip")  # SigLIP attends to padding
    pixels_1CHW = encoder.transform(picture())[None]
    torch.testing.assert_close(given["pixel_values"], pixels_1CHW, rtol=0, atol=1e-5)
    theirs = model(**given)
    for mine, other in (
        (encoder.embed_images(pixels_1CHW), theirs.image_embeds),
        (encoder.embed_texts(MARKED), theirs.text_embeds),
        (encoder.zero_shot(pixels_1CHW, MARKED), theirs.logits_per_image),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    names: dict[str, Any] = {"image": picture()}
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace("FOLDER", str(tmp_path / "out")), names)
    mine = encoder.zero_shot(pixels_1CHW, ["a cat", "a dog"])
    torch.testing.assert_close(names["logits"].detach(), mine, rtol=1e-4, atol=1e-5)
    back = load_encoder(str(tmp_path / "out"))
    assert torch.equal(back.zero_shot(pixels_1CHW, MARKED), encoder.zero_shot(pixels_1CHW, MARKED))


@torch.no_grad()
def test_towers_that_were_changed_are_written_as_they_are_now(tmp_path: Path) -> None:
    clip(tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    towers: Any = encoder.objective_module
    for value in (towers.trunk.model.post_layernorm.weight, towers.trunk.model.embeddings.class_embedding):
        value.mul_(1.5)
    export_encoder(encoder, tmp_path / "out", "transformers")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    pixels = torch.randn(2, 3, 16, 16)
    theirs = torch.nn.functional.normalize(model.get_image_features(pixels).pooler_output, dim=-1)
    torch.testing.assert_close(encoder.embed_images(pixels), theirs, rtol=1e-4, atol=1e-5)


def test_files_of_earlier_versions_lose_what_is_computed_and_where_they_were(tmp_path: Path) -> None:
    clip(tmp_path / "model")
    tensors, path = load_file(tmp_path / "model/model.safetensors"), tmp_path / "model/config.json"
    counted = {f"{part}_model.embeddings.position_ids": torch.arange(5)[None] for part in ("text", "vision")}
    save_file({name: value.half() for name, value in tensors.items()} | counted, tmp_path / "model/model.safetensors")
    config = json.loads(path.read_text())
    del config["dtype"], config["architectures"]
    config |= {"torch_dtype": "float32", "_name_or_path": "/a/folder"}
    config["text_config"] |= {"torch_dtype": "float32", "_name_or_path": ""}
    path.write_text(json.dumps(config))
    export_encoder(load_encoder(str(tmp_path / "model")), tmp_path / "out", "transformers", dtype="float16")
    found = (tmp_path / "out/config.json").read_text()
    assert "/a/folder" not in found
    assert "float32" not in found
    assert json.loads(found)["architectures"] == ["CLIPModel"]
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert model.dtype == model.text_model.embeddings.token_embedding.weight.dtype == torch.float16
    after = load_file(tmp_path / "out/model.safetensors")
    assert after.keys() == tensors.keys()
    assert all(torch.equal(value.half(), after[name]) for name, value in tensors.items())


def with_size(encoder: Encoder, size: int | None) -> Encoder:
    other = copy.copy(encoder)
    other.model = attrs.evolve(encoder.model, image_size=size)
    return other


def test_what_transformers_cannot_open_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    clip(tmp_path / "clip")
    siglip(tmp_path / "siglip")
    encoder = load_encoder(str(tmp_path / "clip"))
    towers = encoder.objective
    other_trunk = load_encoder(str(run_of(tmp_path / "study")))
    other_trunk.model = attrs.evolve(other_trunk.model, objective=towers)
    other_tower = copy.copy(encoder)
    changed: Any = encoder.trunk
    changed = attrs.evolve(changed, config=changed.config.replace("quick_gelu", "gelu"))
    other_tower.model = attrs.evolve(encoder.model, trunk=changed)
    tokens: Any = load_encoder(str(tmp_path / "siglip")).objective
    with_marks = attrs.evolve(tokens, tokenizer=attrs.evolve(tokens.tokenizer, delete_punctuation=False))
    marked = load_encoder(str(tmp_path / "siglip"))
    marked.model = attrs.evolve(marked.model, objective=with_marks)
    (tmp_path / "odd").mkdir()
    sizes = {**SIZES, "image_size": 20, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config={**SIZES, "vocab_size": 40, "eos_token_id": 39}, vision_config=sizes, projection_dim=12
    )  # fmt: skip
    stirred(transformers.CLIPModel(config)).save_pretrained(tmp_path / "odd")
    (tmp_path / "to").mkdir()
    for refused, target, message in (
        (other_trunk, "transformers", "its trunk 'vit' is not the image tower in the configuration of its towers"),
        (other_tower, "transformers", "its trunk 'transformers' is not the image tower"),
        (with_size(encoder, 32), "transformers", "it reads images of 32 px, with positions .* for 16 px"),
        (with_size(encoder, None), "transformers", "it reads images of any size"),
        (load_encoder(str(tmp_path / "odd")), "transformers", "20 px do not divide into patches of 8 px"),
        (marked, "transformers", r"only in SigLIP's form \(.*\), and has delete_punctuation=False"),
        (marked, "onnx", "only in SigLIP's form"),
        (encoder, "apple", "it has no image and text tower"),
    ):
        with pytest.raises(CannotExport, match=message):
            export_encoder(refused, tmp_path / "to" / "out", target)
    assert list((tmp_path / "to").iterdir()) == []
