"""Exported encoders: other libraries open them with equal outputs, and tensors come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import timm
import torch
from golden_files import FOLDER, tensors
from PIL import Image
from safetensors.torch import load_file, save_file
from small_encoders import FORM, SINCOS, SMALL, TEXTS, TOWERS, TRUNK, run_of
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from aimcore import AimcoreError, Encoder, Trunk, load_encoder
from aimcore.encoders import export
from aimcore.encoders.export import CannotExport, export_encoder
from aimcore.encoders.model_card import CardSection
from aimcore.run import command
from aimcore_layouts.timm_names import architecture
from aimcore_trunks import ViT


def golden(name: str, **options: Any) -> Encoder:
    return load_encoder(str(FOLDER / f"{name}.weights.safetensors"), num_heads=4, **options)


def same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["aim_v2", "aim_v2_native"])
def test_transformers_opens_an_exported_encoder_with_equal_outputs(name: str, tmp_path: Path) -> None:
    encoder, pixels = golden(name), tensors(f"{name}.io")["pixels"]
    export_encoder(encoder, tmp_path / "out", "transformers")
    model = AutoModel.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert type(model).__name__ == "Aimv2VisionModel"
    theirs = model(pixels, output_hidden_states=True)
    torch.testing.assert_close(theirs.last_hidden_state, encoder.features(pixels), rtol=1e-5, atol=1e-5)
    back = load_encoder(str(tmp_path / "out"))
    assert same(back.state(), encoder.state())
    assert back.trunk == encoder.trunk
    assert back.known_preprocessing.preprocessing == encoder.known_preprocessing.preprocessing


def test_transformers_prepares_images_as_the_encoder_does(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path)))
    export_encoder(encoder, tmp_path / "out", "transformers")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((300, 200))  # smooth, as photographs are
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    mine = encoder.transform(image)
    assert mine.shape == theirs.shape == (3, 32, 32)
    assert float((mine - theirs).abs().max()) < 0.05  # both round to bytes, after filters of their own
    assert load_encoder(str(tmp_path / "out")).known_preprocessing.preprocessing.eval_crop == 0.5


@torch.no_grad()
def test_timm_opens_an_exported_encoder_with_equal_outputs(tmp_path: Path) -> None:
    encoder, pixels = golden("aim_v2"), tensors("aim_v2.io")["pixels"]
    export_encoder(encoder, tmp_path / "out", "timm")
    name, arguments = architecture(encoder.trunk)
    path = tmp_path / "out" / "model.safetensors"
    for model in (
        timm.create_model(name, checkpoint_path=path, **arguments),
        timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True),
    ):
        tokens = model.eval().forward_features(pixels)
        torch.testing.assert_close(tokens, encoder.features(pixels), rtol=1e-5, atol=1e-5)
    (mean, _, crop), stated = encoder.known_preprocessing.preprocessing, model.pretrained_cfg
    assert (tuple(stated["mean"]), stated["crop_pct"], stated["input_size"]) == (mean, crop, (3, 56, 56))
    back = load_encoder(str(tmp_path / "out"))
    assert same(back.state(), encoder.state())
    assert back.trunk == encoder.trunk


@pytest.mark.parametrize("name", ["aim_v1", "aim_v2", "aim_v2_native", "aim_v2_lit"])
def test_a_file_of_the_authors_comes_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    encoder = golden(name, text_heads=4) if name == "aim_v2_lit" else golden(name)
    export_encoder(encoder, tmp_path / "out", "apple")
    assert same(load_file(tmp_path / "out" / "model.safetensors"), tensors(f"{name}.weights"))
    back = load_encoder(str(tmp_path / "out"))  # the config has the heads
    assert (back.trunk, back.probe_layers) == (encoder.trunk, encoder.probe_layers)
    assert back.known_preprocessing.preprocessing == encoder.known_preprocessing.preprocessing


@torch.no_grad()
def test_both_towers_and_the_tokenizer_of_a_run_open_in_transformers(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, objective=TOWERS)))
    export_encoder(encoder, tmp_path / "out", "transformers")
    model = AutoModel.from_pretrained(tmp_path / "out", attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    given = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(given["input_ids"], TOWERS.tokenizer.encode(TEXTS, 9).ids_BT)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = model(pixel_values=pixels, input_ids=given["input_ids"], attention_mask=given["attention_mask"])
    torch.testing.assert_close(theirs.logits_per_image, encoder.zero_shot(pixels, TEXTS), rtol=1e-4, atol=1e-4)
    back = load_encoder(str(tmp_path / "out"))
    assert same(back.state(), encoder.state())
    assert torch.equal(back.embed_texts(TEXTS), encoder.embed_texts(TEXTS))


def test_large_weights_are_divided_and_open_in_transformers(tmp_path: Path) -> None:
    encoder = golden("aim_v2")
    export_encoder(encoder, tmp_path / "out", "transformers", shard_bytes=100_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert len(files) > 1
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert same(load_encoder(str(tmp_path / "out")).state(), encoder.state())
    own = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    assert torch.equal(own["rms_norm.weight"], encoder.module.state_dict()["norm.weight"])


@pytest.mark.parametrize(
    ("trunk", "objective", "target", "message"),
    [
        (ViT(**SMALL), None, "transformers", "AIMv2 has 'rms_norm' and 'swiglu'"),
        (ViT(**SMALL), None, "timm", "its norm is 'layer_norm' and its ffn 'gelu'"),
        (SINCOS, None, "timm", r"its positions are fixed \(native resolution\)"),
        (ViT(**SMALL, num_extra=2, **FORM), None, "apple", "has 2 extra tokens"),
        (ViT(**SMALL, ffn_bias=True, **FORM), None, "transformers", "has biases"),
        (ViT(**SMALL, positions="learned", grid=(4, 4)), None, "apple", "are learned"),
        (SINCOS, attrs.evolve(TOWERS, loss="sigmoid"), "transformers", "'sigmoid'.*Its trunk alone: --trunk"),
        (SINCOS, attrs.evolve(TOWERS, num_pool_heads=4), "apple", "pool has 4 heads and its trunk 2"),
        (TRUNK, TOWERS, "timm", "cannot be exported to timm.*--trunk"),
        (TRUNK, None, "flax", "there is no format 'flax': those that exist are apple, timm, transformers, onnx"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_express_is_refused_before_anything_is_written(
    trunk: Trunk, objective: Any, target: str, message: str, tmp_path: Path
) -> None:
    encoder = load_encoder(str(run_of(tmp_path / "study", trunk, objective)))
    (tmp_path / "to").mkdir()
    with pytest.raises(CannotExport, match=message):
        export_encoder(encoder, tmp_path / "to" / "out", target)
    assert list((tmp_path / "to").iterdir()) == []


def test_the_trunk_of_two_towers_is_exported_alone_where_it_is_asked_for(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, objective=TOWERS)))
    export_encoder(encoder, tmp_path / "out", "timm", trunk_only=True)
    back = load_encoder(str(tmp_path / "out"))
    assert same(dict(back.module.state_dict()), dict(encoder.module.state_dict()))
    assert "Not in these files: image_tower, scale, text_tower" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_that_exists_is_refused_and_a_failed_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = golden("aim_v2")
    (tmp_path / "out").mkdir()
    with pytest.raises(CannotExport, match="out exists already: remove it, or export to another folder"):
        export_encoder(encoder, tmp_path / "out", "apple")
    (tmp_path / "out").rmdir()

    def fail(*_: object) -> None:
        # The weights are there already, under another name.
        (partial,) = tmp_path.glob(".out.*.partial")
        assert (partial / "model.safetensors").is_file()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_write_others", fail)
    with pytest.raises(AimcoreError, match=r"cannot write .*out: No space left on device"):
        export_encoder(encoder, tmp_path / "out", "apple")
    assert list(tmp_path.iterdir()) == []


def stored_in(dtype: torch.dtype, path: Path) -> Encoder:
    """The golden encoder in a file of ``dtype``."""
    save_file({name: value.to(dtype) for name, value in tensors("aim_v2.weights").items()}, path)
    return load_encoder(str(path), num_heads=4)


def test_numbers_keep_the_type_of_the_source_unless_another_one_is_chosen(tmp_path: Path) -> None:
    source = tmp_path / "bf16.safetensors"
    encoder = stored_in(torch.bfloat16, source)
    assert encoder.source.dtype == "bfloat16"
    export_encoder(encoder, tmp_path / "same", "apple")
    assert same(load_file(tmp_path / "same/model.safetensors"), load_file(source))
    assert "- Weights are in bfloat16, as in the source." in (tmp_path / "same/README.md").read_text()
    words = ["export", str(source), str(tmp_path / "half"), "--to", "transformers", "--num-heads", "4"]
    assert command([*words, "--dtype", "float16"]) == 0
    assert "- Weights are in float16; those of the source are in bfloat16." in (tmp_path / "half/README.md").read_text()
    model = AutoModel.from_pretrained(tmp_path / "half")
    assert model.dtype == torch.float16
    back = load_encoder(str(tmp_path / "half"))
    assert back.source.dtype == "float16"
    assert same(back.state(), {name: value.half().float() for name, value in encoder.state().items()})
    assert torch.equal(model.rms_norm.weight, encoder.module.state_dict()["norm.weight"].half())


def test_a_type_that_cannot_hold_the_numbers_is_refused(tmp_path: Path) -> None:
    encoder = golden("aim_v2")
    encoder.module.norm.weight.data[0] = 1e5
    with pytest.raises(CannotExport, match=r"float16 has no numbers as large as those in trunk.post_trunk_norm.weight"):
        export_encoder(encoder, tmp_path / "out", "apple", dtype="float16")
    with pytest.raises(CannotExport, match="ONNX graphs are written in float32"):
        export_encoder(encoder, tmp_path / "out", "onnx", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_timm_gets_one_file(tmp_path: Path) -> None:
    with pytest.raises(CannotExport, match="its readers open one file"):
        export_encoder(golden("aim_v2"), tmp_path / "out", "timm", shard_bytes=1000)


def test_the_card_says_what_was_trained_and_measured_without_folders_of_the_machine(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    probe = {"top1": 0.75, "ci95": [0.5, 0.9], "untrained_top1": 0.25}
    entry = {"name": "run", "status": "finished", "seed": 0, "probes": {"linear": probe}, "recipe": "run/recipe.json"}
    (tmp_path / "summary.json").write_text(json.dumps({"study": "s", "machine": {}, "experiments": [entry]}))
    assert command(["export", str(run), str(tmp_path / "out"), "--to", "apple"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| probe `linear`, top-1 | 0.7500 | 0.5000 to 0.9000 | 0.2500 |  |" in card
    assert (run / "recipe.json").read_text().strip() in card
    assert load_encoder(str(run)).source.sha256 in card
    assert "Not in these files: head" in card
    assert str(tmp_path) not in card
    assert command(["export", str(run), str(tmp_path / "out"), "--to", "apple"]) == 2
    assert command(["export", str(run), str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_further_sections_end_the_card(tmp_path: Path) -> None:
    export_encoder(golden("aim_v2"), tmp_path / "out", "apple", sections=[CardSection("Notes", "One.")])
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: apple\n")
    assert "license: apple-ascl" in card
    assert card.endswith("## Notes\n\nOne.\n")


def test_the_card_says_which_settings_are_assumed(tmp_path: Path) -> None:
    encoder = load_encoder(FOLDER / "aim_v2_lit.weights.safetensors", num_heads=4, text_heads=4)
    export_encoder(encoder, tmp_path / "out", "apple")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- These settings are assumed: the released model files and timm state them.\n" in card
    assert "- The objective around the trunk was `contrastive`.\n" in card


def test_the_card_of_towers_without_a_tokenizer_uses_ids(tmp_path: Path) -> None:
    encoder = load_encoder(FOLDER / "aim_v2_lit.weights.safetensors", num_heads=4, text_heads=4, preprocessing="clip")
    export_encoder(encoder, tmp_path / "out", "transformers")
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoTokenizer" not in card
    ids_BT = torch.tensor([[1, 2, 96, 0], [5, 96, 0, 0]])
    names = {"image": Image.new("RGB", (56, 56), (9, 99, 200)), "ids_BT": ids_BT, "mask_BT": (ids_BT > 0).long()}
    exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "out")), names)
    pixels_1CHW = encoder.transform(names["image"])[None]
    torch.testing.assert_close(names["logits"].detach(), encoder.zero_shot(pixels_1CHW, ids_BT), rtol=1e-4, atol=1e-4)
