"""Vision encoders of transformers go back to folders of transformers, also the image towers of CLIP and SigLIP."""

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
from safetensors.torch import load_file
from small_encoders import run_of
from small_towers import MAKERS, stirred
from torch import Tensor

from aimcore import Encoder, load_encoder
from aimcore.encoders.export import CannotExport, export_encoder
from aimcore.run import command
from aimcore_layouts import TransformersVision
from aimcore_layouts.inference import UnknownSetting
from aimcore_objectives import Classification
from aimcore_trunks.transformers_models import transformers_trunk

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "image_size": 16}
CONFIGS: dict[str, Any] = {
    "CLIPVisionModel": transformers.CLIPVisionConfig(**SIZES),
    "SiglipVisionModel": transformers.SiglipVisionConfig(**SIZES),
    "ViTModel": transformers.ViTConfig(**SIZES),
    "Dinov2Model": transformers.Dinov2Config(**SIZES),
    "DINOv3ViTModel": transformers.DINOv3ViTConfig(**SIZES),
    "ViTMAEModel": transformers.ViTMAEConfig(**SIZES),
    "BeitModel": transformers.BeitConfig(**SIZES),
    "ConvNextModel": transformers.ConvNextConfig(**STAGES),
}
LEFT_OUT = {"ViTModel": "pooler.dense.", "BeitModel": "pooler.layernorm."}
TOWER = "vision_model."


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def picture(side: int = 16) -> Image.Image:
    return Image.frombytes("RGB", (side, side), bytes((37 * place) % 251 for place in range(side * side * 3)))


def at_32_px(encoder: Encoder) -> Encoder:
    """The encoder as a run that read images of 32 px has it."""
    other = copy.copy(encoder)
    other.model = attrs.evolve(encoder.model, image_size=32)
    other.known_preprocessing = attrs.evolve(encoder.known_preprocessing, image_size=32)
    return other


def by_the_card(folder: Path, image: Image.Image) -> Tensor:
    """What the code in the model card gives."""
    names: dict[str, Any] = {"image": image}
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    with torch.no_grad():
        exec(code.replace("FOLDER", str(folder)), names)
    return names["tokens"]


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_opens_an_exported_trunk_with_equal_outputs(name: str, tmp_path: Path) -> None:
    model = stirred(getattr(transformers, name)(CONFIGS[name]))
    model.save_pretrained(tmp_path / "model")
    encoder = load_encoder(f"transformers:{tmp_path}/model", preprocessing="clip")
    export_encoder(encoder, tmp_path / "out", "transformers")
    before, after = (load_file(tmp_path / one / "model.safetensors") for one in ("model", "out"))
    if name.endswith("VisionModel"):  # released files have this prefix, and transformers reads both
        assert all(one.startswith(TOWER) for one in after)
        after = {one.removeprefix(TOWER): value for one, value in after.items()}
    assert after == {one: value for one, value in after.items() if torch.equal(value, before[one])}
    left_out = LEFT_OUT.get(name, "nothing")
    assert before.keys() - after.keys() == {one for one in before if one.startswith(left_out)}
    card = (tmp_path / "out/README.md").read_text()
    assert f"The weights are from an image encoder of transformers: {name}." in card
    assert str(tmp_path) not in card
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == [name]
    assert config == json.loads((tmp_path / "model/config.json").read_text())
    for cls in (transformers.AutoModel, getattr(transformers, name)):
        opened, found = cls.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert type(opened) is type(model)
        assert found["unexpected_keys"] == set()
        assert {one for one in found["missing_keys"] if not one.startswith("pooler.")} == set()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels_1CHW = encoder.transform(picture())[None]
    theirs = processor(images=picture(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(theirs, pixels_1CHW, rtol=0, atol=1e-5)
    mine, tokens = encoder.features(pixels_1CHW), by_the_card(tmp_path / "out", picture())
    assert isinstance(mine, Tensor)
    tokens = tokens.flatten(2).mT if tokens.dim() == 4 else tokens[:, encoder.trunk.num_extra :]
    torch.testing.assert_close(tokens, mine, rtol=1e-4, atol=1e-5)
    again = load_encoder(f"transformers:{tmp_path}/out")
    assert again.known_preprocessing.preprocessing == encoder.known_preprocessing.preprocessing
    assert torch.equal(again.features(pixels_1CHW), mine)  # type: ignore[arg-type]


@torch.no_grad()
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_image_tower_alone_is_exported_with_the_norm_that_was_trained(family: str, tmp_path: Path) -> None:
    MAKERS[family](tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    towers: Any = encoder.objective_module
    towers.trunk.model.post_layernorm.weight.mul_(1.5)
    export_encoder(encoder, tmp_path / "out", "transformers", trunk_only=True)
    cls = {"clip": transformers.CLIPVisionModel, "siglip": transformers.SiglipVisionModel}[family]
    model, found = cls.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    pixels = torch.randn(2, 3, 16, 16)
    theirs, mine = model(pixels), encoder.features(pixels)
    assert isinstance(mine, Tensor)
    tokens = theirs.last_hidden_state[:, 1:] if family == "clip" else theirs.last_hidden_state
    torch.testing.assert_close(tokens, mine, rtol=1e-4, atol=1e-5)
    if family == "clip":  # what the projection reads
        embedded = torch.nn.functional.normalize(towers.image_tower.project(theirs.pooler_output), dim=-1)
        torch.testing.assert_close(embedded, encoder.embed_images(pixels), rtol=1e-4, atol=1e-5)
    card = (tmp_path / "out/README.md").read_text()
    assert "text_tower" in card
    torch.testing.assert_close(
        by_the_card(tmp_path / "out", picture()), model(encoder.transform(picture())[None]).last_hidden_state
    )


@torch.no_grad()
def test_the_trunk_of_a_run_with_another_objective_is_exported_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers.Dinov2Model(transformers.Dinov2Config(**{**SIZES, "image_size": 32})).save_pretrained(
        tmp_path / "model"
    )
    trunk, classes = transformers_trunk(tmp_path / "model"), Classification(num_classes=3)
    run = run_of(tmp_path / "study", trunk=trunk, objective=classes)
    assert command(["export", str(run), str(tmp_path / "out"), "--to", "transformers"]) == 0
    assert "README.md says how it is opened" in capsys.readouterr().out
    encoder, pixels = load_encoder(str(run)), torch.randn(2, 3, 32, 32)
    theirs = transformers.Dinov2Model.from_pretrained(tmp_path / "out")(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder.features(pixels), theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_trunk_that_was_read_at_another_size_says_how_it_is_read(tmp_path: Path) -> None:
    MAKERS["clip"](tmp_path / "model")
    encoder = at_32_px(load_encoder(str(tmp_path / "model")))
    export_encoder(encoder, tmp_path / "out", "transformers", trunk_only=True)
    mine = encoder.features(encoder.transform(picture(32))[None])
    assert mine.shape == (1, 16, 20)  # type: ignore[union-attr]
    torch.testing.assert_close(by_the_card(tmp_path / "out", picture(32))[:, 1:], mine, rtol=1e-4, atol=1e-5)


def test_the_hint_to_export_the_trunk_alone_is_true(tmp_path: Path) -> None:
    MAKERS["clip"](tmp_path / "clip")
    encoder = at_32_px(load_encoder(str(tmp_path / "clip")))
    with pytest.raises(CannotExport, match=r"give images of 16 px.*\. Its trunk alone: --trunk$"):
        export_encoder(encoder, tmp_path / "out", "transformers")
    export_encoder(encoder, tmp_path / "out", "transformers", trunk_only=True)
    with pytest.raises(CannotExport, match="it has no image and text tower") as refused:
        export_encoder(encoder, tmp_path / "apple", "apple")
    assert "--trunk" not in str(refused.value)
    with pytest.raises(CannotExport):
        export_encoder(encoder, tmp_path / "apple", "apple", trunk_only=True)


def test_no_file_is_taken_for_one_and_other_trunks_are_refused(tmp_path: Path) -> None:
    layout = TransformersVision()
    assert layout.fit({}).problems
    with pytest.raises(UnknownSetting, match="give the folder as transformers:FOLDER"):
        layout.model({}, None, None)  # type: ignore[arg-type]
    encoder = load_encoder(str(run_of(tmp_path / "study")))
    assert "its trunk 'vit' is not a model of transformers" in " ".join(layout.inexpressible(encoder.model))
