"""CLIP and SigLIP in the files of transformers: features, logits and ids are those of transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from small_towers import MAKERS, SIZES, TEXTS, clip, siglip, stirred
from torch import Tensor, nn

from aimcore import AimcoreError, Data, Experiment, Study, Weights, load_encoder, recipe
from aimcore.encoders.export import export_encoder
from aimcore.running.study_run import run_study
from aimcore_evaluations import ZeroShot
from aimcore_layouts.inference import UnknownSetting
from aimcore_objectives.transformers_towers import OtherTower
from aimcore_sources import ImageFolder
from aimcore_tokenizers import files as tokenizer_files
from aimcore_tokenizers.given_ids import TextNeedsTokenizer
from aimcore_trunks import Pretrained
from aimcore_trunks.transformers_models import transformers_trunk


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_images_texts_and_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model, tokenizer = MAKERS[family](tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.source.layout == f"{family}_transformers"
    given = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=9, return_tensors="pt")
    assert encoder.objective is not None
    assert encoder.objective.text is not None
    own, context_length = encoder.objective.text
    assert torch.equal(own.encode(TEXTS, context_length).ids_BT, given["input_ids"])
    marked = ["A cat, of a dog!", "cat-dog " * 9]  # SigLIP deletes punctuation; the second is cut
    cut = tokenizer(marked, padding="max_length", truncation=True, max_length=9, return_tensors="pt")["input_ids"]
    assert torch.equal(own.encode(marked, context_length).ids_BT, cut)
    pixels = torch.randn(3, 3, 16, 16)
    mask = given["attention_mask"] if family == "clip" else None
    theirs = model(input_ids=given["input_ids"], pixel_values=pixels, attention_mask=mask)
    close(encoder.embed_images(pixels), theirs.image_embeds)
    close(encoder.embed_texts(TEXTS), theirs.text_embeds)
    close(encoder.zero_shot(pixels, TEXTS), theirs.logits_per_image)
    tokens = model.vision_model(pixels).last_hidden_state
    close(encoder.features(pixels), tokens[:, 1:] if family == "clip" else tokens)


@torch.no_grad()
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_saved_encoder_is_opened_without_the_config(family: str, tmp_path: Path) -> None:
    MAKERS[family](tmp_path / "model")
    encoder = load_encoder(str(tmp_path / "model"))
    encoder.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "config.json").exists()
    before, after = load_file(tmp_path / "model/model.safetensors"), load_file(tmp_path / "saved/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    again, pixels = load_encoder(str(tmp_path / "saved")), torch.randn(2, 3, 16, 16)
    assert torch.equal(again.zero_shot(pixels, TEXTS), encoder.zero_shot(pixels, TEXTS))


@torch.no_grad()
def test_images_that_do_not_divide_into_patches_are_read_as_far_as_patches_reach(tmp_path: Path) -> None:
    sizes = {**SIZES, "image_size": 20, "patch_size": 8}
    text = {**SIZES, "vocab_size": 40, "max_position_embeddings": 9, "projection_size": 16}
    model = stirred(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=sizes)))
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.image_size == 16
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    pixels = encoder.transform(image)
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 * 2 - 1
    assert torch.allclose(pixels, whole[:, 2:18, 2:18], atol=1e-6)  # resized to 20 px, and the centre is cut out
    padded = torch.nn.functional.pad(pixels.unsqueeze(0), (0, 4, 0, 4))  # the convolution leaves out what is no patch
    close(
        encoder.embed_images(pixels.unsqueeze(0)), nn.functional.normalize(model.get_image_features(padded)[1], dim=-1)
    )


@pytest.fixture
def pictures(tmp_path: Path) -> ImageFolder:
    for colour in ("cat", "dog"):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        for number in range(3):
            name = tmp_path / "pictures" / colour / f"{number}.png"
            Image.new("RGB", (16 + number, 16), (80 * number, 200 if colour == "cat" else 20, 90)).save(name)
    return ImageFolder(url=str(tmp_path / "pictures"))


def test_an_experiment_that_trains_nothing_measures_both_towers(pictures: ImageFolder, tmp_path: Path) -> None:
    clip(tmp_path / "clip")
    encoder = load_encoder(str(tmp_path / "clip"))
    fields = encoder.to_recipe()
    data = Data(
        train=pictures, validation=pictures, batch_size=3, image_size=16, probe_train=pictures, probe_test=pictures,
        caption_weights={"name": 1.0}, mean=fields["data"]["mean"], std=fields["data"]["std"], eval_crop=1.0,
    )  # fmt: skip
    experiment = Experiment(
        name="clip", data=data, trunk=encoder.trunk, objective=encoder.objective, num_steps=0, probes=(),
        initial_weights=Weights(url=encoder.source.url, part="all"), evaluations=(ZeroShot(),),
    )  # fmt: skip
    recipe.save(tmp_path / "recipe.json", experiment)
    assert recipe.load(tmp_path / "recipe.json") == experiment
    run_study(Study(name="frozen", experiments=[experiment]), tmp_path / "runs", scale=None)
    (entry,) = json.loads((tmp_path / "runs/summary.json").read_text())["experiments"]
    images = torch.stack(
        [encoder.transform(Image.open(path)) for path in sorted((tmp_path / "pictures").rglob("*.png"))]
    )
    best = encoder.zero_shot(images, ["cat", "dog"]).argmax(1).tolist()
    right = sum(one == label for one, label in zip(best, [0, 0, 0, 1, 1, 1], strict=True))
    assert entry["evaluations"]["zero_shot/top1"]["value"] == pytest.approx(right / 6)
    assert Pretrained(url=str(tmp_path / "clip")).build().width == 20
    export_encoder(load_encoder(str(tmp_path / "runs/clip")), tmp_path / "out", "transformers")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("clip", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    siglip(tmp_path / "siglip")
    clip(tmp_path / "clip")
    encoder = load_encoder(str(tmp_path / "siglip"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(tokenizer_files.MissingLibrary, match=r"needs the package sentencepiece.*'aimcore\[text\]'"):
        load_encoder(str(tmp_path / "siglip")).embed_texts(["a cat"])
    assert encoder.embed_images(torch.zeros(1, 3, 16, 16)).shape == (1, 16)
    (tmp_path / "siglip/spiece.model").unlink()
    with pytest.raises(TextNeedsTokenizer, match=r"put the tokenizer\.json"):
        load_encoder(str(tmp_path / "siglip")).embed_texts(["a cat"])
    with pytest.raises(OtherTower, match="has the id 40, and the model's vocabulary has 40"):
        encoder.embed_texts(torch.tensor([[40, 1]]))
    (tmp_path / "siglip/config.json").rename(tmp_path / "siglip/other.json")
    with pytest.raises(UnknownSetting, match=r"put its config\.json next to them"):
        load_encoder(str(tmp_path / "siglip"))
    (tmp_path / "clip/config.json").write_text((tmp_path / "siglip/other.json").read_text())
    with pytest.raises(UnknownSetting, match="says model_type 'siglip'"):
        load_encoder(str(tmp_path / "clip"))
    with pytest.raises(AimcoreError, match="two towers: give the folder itself"):
        transformers_trunk(tmp_path / "clip")
