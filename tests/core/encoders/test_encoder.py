"""What an encoder does apart from reading its file: preprocessing, other sizes, recipes, saving, runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import other_layouts as other
import pytest
import torch
import trained_runs
from golden_files import FOLDER, assert_golden, tensors
from loguru import logger
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.v2 import functional as tv

from aimcore import Data, Experiment, Reading, load_encoder, recipe
from aimcore.contracts.images import images_of
from aimcore.encoders.encoder_source import EncoderError
from aimcore.engine import begun_module
from aimcore.experiment import IMAGENET_MEAN, IMAGENET_STD
from aimcore.io.preprocessor_files import CLIP, IMAGENET
from aimcore.recipe.writing import plain
from aimcore.run import command
from aimcore_heads import MLPHead
from aimcore_objectives import Contrastive, Multimodal, NextPatch
from aimcore_sources import BundledEmoji
from aimcore_tokenizers import GivenIds
from aimcore_tokenizers.given_ids import TextNeedsTokenizer
from aimcore_trunks import ViT, from_released

AIM, AIMV2, LIT, TRAINING = (
    str(FOLDER / f"{name}.weights.safetensors") for name in ("aim_v1", "aim_v2", "aim_v2_lit", "aim_v2_pretraining")
)
PIXELS = "pixels"


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    said: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
    yield said
    logger.remove(sink)
    logger.disable("aimcore")


def _folder(path: Path, **files: object) -> str:
    shutil.copy(AIMV2, path / "model.safetensors")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return str(path)


def test_both_normalisations_are_named_where_no_file_says_which(tmp_path: Path, warnings: list[str]) -> None:
    encoder = load_encoder(AIMV2, num_heads=4)
    assert encoder.known_preprocessing.preprocessing == CLIP
    (said,) = warnings
    assert str(list(CLIP.mean)) in said
    assert str(list(IMAGENET.mean)) in said
    assert load_encoder(AIMV2, num_heads=4, preprocessing="imagenet").known_preprocessing.preprocessing == IMAGENET
    assert load_encoder(AIM, num_heads=4, probe_layers=(1, 2)).known_preprocessing.preprocessing == IMAGENET
    crop = {"do_center_crop": True, "crop_size": {"height": 56}, "size": {"shortest_edge": 64}}
    stated = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, **crop}
    known = load_encoder(_folder(tmp_path, preprocessor_config=stated), num_heads=4).known_preprocessing
    assert (known.preprocessing, known.image_size, known.source) == (IMAGENET, 56, "preprocessor_config.json")
    assert len(warnings) == 1


def test_timms_config_has_the_normalisation_the_size_and_the_licence(tmp_path: Path, warnings: list[str]) -> None:
    stated = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.1, 0.2, 0.3],
        "crop_pct": 0.9,
        "input_size": [3, 56, 56],
        "license": "mit",
    }
    config = {"architecture": "aimv2_large_patch14_224", "num_features": 64, "pretrained_cfg": stated}
    save_file(other.timm(tensors("aim_v2.weights")), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(str(tmp_path), num_heads=4)
    assert encoder.known_preprocessing.preprocessing == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3), 0.9)
    assert (encoder.image_size, encoder.source.licence, warnings) == (56, "mit", [])


def test_the_transform_resizes_crops_and_normalises() -> None:
    image = Image.effect_noise((120, 90), 80).convert("RGBA")
    encoder = load_encoder(AIM, num_heads=4, probe_layers=(1, 2), image_size=56)
    grey = tv.pil_to_tensor(image.convert("RGB"))
    resized = tv.resize(grey, [64], interpolation=tv.InterpolationMode.BICUBIC, antialias=True)  # 56 / 0.875
    cut = tv.center_crop(resized, [56, 56]).float() / 255
    expected = (cut - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(encoder.transform(image), expected)
    assert encoder.features(encoder.transform(image).unsqueeze(0)).shape == (1, 16, 64)


def test_a_native_encoder_keeps_the_aspect_ratio() -> None:
    encoder = load_encoder(str(FOLDER / "aim_v2_native.weights.safetensors"), num_heads=4)
    assert encoder.transform(Image.new("RGB", (300, 200))).shape == (3, 196, 294)
    assert encoder.transform(Image.new("RGB", (4000, 2000))).shape == (3, 630, 1274)  # at most 4096 patches


def test_other_resolutions_are_interpolated_and_never_sliced() -> None:
    encoder = load_encoder(AIMV2, num_heads=4)
    pixels = tensors("aim_v2.io")["pixels"]
    larger = torch.nn.functional.interpolate(pixels, (70, 84))
    assert encoder.features(larger).shape == (3, 30, 64)
    smaller = encoder.features(pixels[..., :28, :28])  # 2 x 2 patches
    table_1DRC = tensors("aim_v2.weights")["preprocessor.pos_embed"].transpose(1, 2).reshape(1, 64, 4, 4)
    wanted = torch.nn.functional.interpolate(table_1DRC, (2, 2), mode="bicubic", antialias=True).flatten(2)[0].T
    state = tensors("aim_v2.weights") | {"preprocessor.pos_embed": wanted.unsqueeze(0).contiguous()}
    expected = ViT(**{**_fields(encoder.trunk), "grid": (2, 2), "interpolate": False}).build()
    expected.load_state_dict(from_released(state))
    with torch.no_grad():
        torch.testing.assert_close(smaller, expected(images_of(pixels[..., :28, :28], 14), Reading()).tokens_BND)


def _fields(trunk: object) -> dict[str, object]:
    return {field.name: getattr(trunk, field.name) for field in attrs.fields(type(trunk))}


@pytest.mark.parametrize("shape", [(1, 3, 57, 56), (3, 56, 56), (1, 1, 56, 56), (1, 3, 7, 14)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match=r"\[B, 3, H, W\] with B at least 1 and H and W multiples of 14 px; got"):
        load_encoder(AIMV2, num_heads=4).features(torch.zeros(shape))


def test_what_an_encoder_lacks_is_said() -> None:
    encoder, pixels = load_encoder(AIMV2, num_heads=4), tensors("aim_v2.io")["pixels"]
    with pytest.raises(EncoderError, match="has no probe"):
        encoder.classify(pixels)
    with pytest.raises(EncoderError, match="has no text tower"):
        encoder.embed_texts(["a"])
    with pytest.raises(EncoderError, match=r"0 to 3 or -4 to -1, such as \[0, -1\]; got \[4\]"):
        encoder.features(pixels, layers=[4])
    with pytest.raises(TextNeedsTokenizer, match="the tokenizer of this model with 97 ids is unknown: give one"):
        load_encoder(LIT, num_heads=4, text_heads=4).embed_texts(["a"])


def test_tokens_are_pooled_over_the_patches_of_each_image() -> None:
    golden = tensors("aim_v2.io")
    encoder = load_encoder(AIMV2, num_heads=4)
    assert_golden(encoder.pool(golden[PIXELS]), golden["features"].mean(1))
    assert_golden(encoder.pool(golden[PIXELS], layers=[1, 2]), (golden["block_1"] + golden["block_2"]).mean(1) / 2)


def _experiment(fields: dict[str, Any], **more: object) -> Experiment:
    source = BundledEmoji(split="test", skin_tones=False, styles=("google",))
    data = Data(train=source, validation=source, batch_size=2, **fields["data"])
    small = NextPatch(head=MLPHead(width=16, depth=1))
    other_trunk = ViT(width=16, depth=1, num_heads=2, patch_size=fields["trunk"]["patch_size"])
    recipe_fields = recipe.to_recipe(
        Experiment(name="next", data=data, trunk=other_trunk, objective=small, num_steps=1)
    )
    recipe_fields["experiment"] |= {"trunk": fields["trunk"], "initial_weights": [fields["initial_weights"]], **more}
    return recipe.from_recipe(recipe_fields)


@pytest.mark.parametrize("layout", ["authors", "transformers_vision", "flax", "pickle"])
def test_an_experiment_begins_with_an_encoder_of_any_layout(layout: str, tmp_path: Path) -> None:
    state, path = tensors("aim_v2.weights"), tmp_path / "weights"
    if layout == "flax":
        path.write_bytes(other.flax(state))
    elif layout == "pickle":
        torch.save(state, path)
    else:
        save_file(state if layout == "authors" else other.transformers_vision(state), path)
    encoder = load_encoder(str(path), num_heads=4)
    experiment = _experiment(encoder.to_recipe())
    assert (experiment.data.mean, experiment.data.image_size) == (CLIP.mean, 56)
    begun = begun_module(experiment).trunk.state_dict()
    assert begun.keys() == encoder.module.state_dict().keys()
    assert all(torch.equal(value, begun[name]) for name, value in encoder.module.state_dict().items())


def test_an_experiment_continues_with_the_decoder_of_the_training_code() -> None:
    encoder = load_encoder(TRAINING, num_heads=4, text_heads=4)
    fields = encoder.to_recipe()
    assert isinstance(encoder.objective, Multimodal)
    decoder = {**fields["initial_weights"], "part": "decoder"}
    experiment = _experiment(
        fields, objective=plain(encoder.objective), initial_weights=[fields["initial_weights"], decoder]
    )
    begun = begun_module(experiment).state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in encoder.state().items())


@pytest.mark.parametrize(
    ("file", "options"),
    [
        (AIM, {"num_heads": 4, "probe_layers": (1, 2)}),
        (AIMV2, {"num_heads": 4, "preprocessing": "imagenet"}),
        (LIT, {"num_heads": 4, "text_heads": 4}),
        (TRAINING, {"num_heads": 4, "text_heads": 4}),
    ],
)
def test_a_saved_encoder_opens_as_it_was(file: str, options: dict[str, object], tmp_path: Path) -> None:
    before = load_encoder(file, **options)  # type: ignore[arg-type]
    before.save(tmp_path / "saved")
    after = load_encoder(str(tmp_path / "saved"))
    assert after.trunk == before.trunk
    assert after.objective == before.objective
    assert after.probe_layers == before.probe_layers
    assert after.known_preprocessing.preprocessing == before.known_preprocessing.preprocessing
    assert after.image_size == before.image_size
    assert after.source.licence == before.source.licence
    assert before.state().keys() == after.state().keys()
    assert all(torch.equal(value, after.state()[name]) for name, value in before.state().items())
    own, written = load_file(file), load_file(tmp_path / "saved" / "model.safetensors")
    assert own.keys() == written.keys()
    assert all(own[name].equal(value) for name, value in written.items())
    with pytest.raises(EncoderError, match="holds an encoder already"):
        before.save(tmp_path / "saved")


def test_the_encoder_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    module = trained_runs.write_run(run, trained_runs.captioning_experiment(), step=2)
    encoder = load_encoder(str(run))
    assert encoder.trunk == trained_runs.captioning_experiment().trunk
    assert (encoder.image_size, encoder.source.layout) == (32, "run")
    assert all(
        torch.equal(value, encoder.module.state_dict()[name]) for name, value in module.trunk.state_dict().items()
    )
    assert begun_module(_experiment(encoder.to_recipe())).trunk.state_dict().keys() == module.trunk.state_dict().keys()
    encoder.save(tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"))
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.features(pixels), encoder.features(pixels))
    assert (again.trunk, again.image_size) == (encoder.trunk, 32)


def test_a_run_without_final_weights_is_refused(tmp_path: Path) -> None:
    recipe.save(tmp_path / "recipe.json", trained_runs.captioning_experiment())
    with pytest.raises(ValueError, match="has no final weights: they are written when training ends"):
        load_encoder(str(tmp_path))


def test_the_two_towers_of_a_file_have_the_objective_that_trains_them() -> None:
    encoder = load_encoder(LIT, num_heads=4, text_heads=4)
    assert isinstance(encoder.objective, Contrastive)
    assert encoder.objective.tokenizer == GivenIds(size=97, end=96)


def test_inspect_shows_what_a_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert command(["inspect", AIMV2, "--num-heads", "4", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert rows["holds"] == "AIMv2, as its authors released it"
        assert rows["bytes"] == 914_240
        assert rows["sha256"].startswith("26b9814f")
        assert rows["parameters of the trunk"] == 227_776  # counted by hand from the shapes
        assert "decoder or prediction head" in rows["not in the file"]
        assert command(["inspect", LIT, "--num-heads", "4", "--text-heads", "4"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "text_tower (89,664 parameters), scale (1 parameter)" in printed
        assert "at most 12 tokens, of 97; tokenizer given_ids" in printed
        assert command(["inspect", str(FOLDER / "aim_v1.io.safetensors")]) == 2
        assert "is in no known layout" in capsys.readouterr().err
    finally:
        logger.remove()
        logger.disable("aimcore")
