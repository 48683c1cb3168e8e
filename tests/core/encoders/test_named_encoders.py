"""What ``load_encoder`` opens apart from files: runs that train nothing, adapted runs, and models by their names."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_encoders import SINCOS, TEXTS, TOWERS, run_of
from small_encoders import TRUNK as LEARNED
from torch import nn
from trained_runs import captioning_experiment, write_run
from transformers import ViTConfig, ViTModel

from aimcore import (
    Experiment,
    InvalidValue,
    ObjectiveModule,
    Reading,
    TrunkModule,
    Weights,
    component,
    load_encoder,
    recipe,
)
from aimcore.contracts.images import images_of
from aimcore.contracts.uncertainty import UncertainEncoder
from aimcore.encoders import own_files
from aimcore.encoders.description import described
from aimcore.encoders.encoder_source import EncoderError, EncoderSource
from aimcore.engine import build_module
from aimcore.io.preprocessor_files import CLIP
from aimcore.io.run_folder import RunFolder
from aimcore_objectives import NoTraining
from aimcore_trunks import LoRA, Pretrained, ViT
from aimcore_trunks.packed_vit import InferenceViT

TRUNK = ViT(width=16, depth=1, num_heads=2, patch_size=16)
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def baseline(folder: Path, weights: Weights | None) -> str:
    """The folder of a run that trains nothing, as a study leaves it."""
    made: Experiment = captioning_experiment(NoTraining(), trunk=TRUNK, num_steps=0, initial_weights=weights)
    (folder / "frozen").mkdir()
    recipe.save(folder / "frozen" / "recipe.json", made)
    return str(folder / "frozen")


def test_a_run_that_trains_nothing_has_the_weights_that_it_begins_with(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = TRUNK.build().eval()
    save_file(module.state_dict(), tmp_path / "trunk.safetensors")
    run = baseline(tmp_path, Weights(url=str(tmp_path / "trunk.safetensors")))
    encoder = load_encoder(run)
    assert all(value.equal(encoder.module.state_dict()[name]) for name, value in module.state_dict().items())
    assert (encoder.image_size, encoder.known_preprocessing.source) == (32, "recipe.json")
    with pytest.raises(EncoderError, match="stores no weights: begin as it did"):
        encoder.to_recipe()
    assert Pretrained(url=run).pretrained()[:2] == (TRUNK, str(tmp_path / "trunk.safetensors"))


def test_a_run_that_begins_with_another_one_finds_it(tmp_path: Path) -> None:
    module = write_run(tmp_path / "tiny", captioning_experiment(trunk=TRUNK), step=2)
    encoder = load_encoder(baseline(tmp_path, Weights(experiment="tiny")))
    own = encoder.module.state_dict()
    assert all(value.equal(own[name]) for name, value in module.trunk.state_dict().items())


def test_an_adapted_run_keeps_its_towers_around_the_merged_trunk(tmp_path: Path) -> None:
    adapted = captioning_experiment(TOWERS, trunk=LoRA(trunk=SINCOS, rank=2))
    module = build_module(adapted).eval()
    with torch.no_grad():
        before = module.embed_images(images_of(PIXELS, 8))
        for name, value in module.trunk.named_parameters():
            if "lora_B" in name:  # zero at first
                nn.init.normal_(value)
        expected = module.embed_images(images_of(PIXELS, 8))
    assert not torch.allclose(before, expected, atol=1e-2)
    write_run(tmp_path / "run", adapted, step=2, module=module)
    encoder = load_encoder(str(tmp_path / "run"))
    assert (encoder.trunk, encoder.is_changed) == (SINCOS, True)
    torch.testing.assert_close(encoder.embed_images(PIXELS), expected, rtol=1e-5, atol=1e-5)
    ids = TOWERS.tokenizer.encode(TEXTS, 9)
    assert torch.equal(encoder.embed_texts(TEXTS), module.embed_texts(ids))


@component("with_teacher")
class WithTeacher(NoTraining):
    """Holds a copy of the trunk, adapted or not."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = super().build(trunk)
        module.teacher = deepcopy(trunk)
        return module


def test_an_adapted_trunk_is_alone_where_other_parts_do_not_fit_around_it(tmp_path: Path) -> None:
    experiment = captioning_experiment(WithTeacher(), trunk=LoRA(trunk=SINCOS, rank=2), num_steps=0)
    module = build_module(experiment)
    source = EncoderSource("run", "run", "a run", (), "", None)
    encoder = own_files._encoder(RunFolder(tmp_path), experiment, module, source)
    assert (encoder.trunk, encoder.objective) == (SINCOS, None)
    torch.testing.assert_close(
        encoder.read(PIXELS).tokens_BND, module.eval().trunk(images_of(PIXELS, 8), Reading()).tokens_BND
    )


def test_a_model_by_its_name_takes_no_settings_of_files_and_can_be_saved(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    name = f"timm:test_vit@{tmp_path}/model.safetensors"
    with pytest.raises(InvalidValue, match=r"(?s)num_heads: cannot be given for timm:test_vit@.*layout: cannot"):
        load_encoder(name, num_heads=2, layout="aimv2_timm")
    encoder = load_encoder(name, preprocessing="clip")
    assert encoder.known_preprocessing.preprocessing == CLIP
    encoder.save(tmp_path / "saved")
    again, size = load_encoder(str(tmp_path / "saved")), encoder.image_size
    assert (again.trunk, again.image_size, again.known_preprocessing.preprocessing) == (encoder.trunk, size, CLIP)
    pixels = torch.randn(1, 3, size, size)
    assert torch.equal(again.features(pixels), encoder.features(pixels))


def test_what_is_given_is_not_uncertain_and_what_is_unknown_is_not_claimed(tmp_path: Path) -> None:
    settings = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8,
                         patch_size=4)  # fmt: skip
    ViTModel(settings).save_pretrained(tmp_path)
    with pytest.warns(UncertainEncoder, match="nothing says how its pixels were normalised"):
        load_encoder(f"transformers:{tmp_path}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncertainEncoder)
        encoder = load_encoder(f"transformers:{tmp_path}", preprocessing="clip")
    assert encoder.known_preprocessing.preprocessing == CLIP
    rows = described(encoder)
    assert "not in the file" not in rows
    assert rows["other resolutions"] == "all that were tried: 3 x 3, 2 x 3, 4 x 4, 1 x 1 patches"  # interpolated
    assert rows["tokens before patches"] == 1


def test_towers_embed_images_with_the_trunk_that_reads_fastest(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, SINCOS, TOWERS)))
    assert encoder.objective_module is not None
    with torch.no_grad():
        expected = encoder.objective_module.embed_images(images_of(PIXELS, 8))
    fast, read = encoder.frozen_module(), []
    assert isinstance(fast, InferenceViT)
    fast.register_forward_hook(lambda *_: read.append("fast"))
    torch.testing.assert_close(encoder.embed_images(PIXELS), expected, rtol=1e-5, atol=1e-5)
    encoder.zero_shot(PIXELS, TEXTS)
    assert read == ["fast", "fast"]
    assert encoder.objective_module.trunk is encoder.module


def test_towers_refuse_images_that_their_trunk_cannot_read(tmp_path: Path) -> None:
    encoder = load_encoder(str(run_of(tmp_path, LEARNED, TOWERS)))
    with pytest.raises(EncoderError, match="positions are for 4 x 4 patches, the images have 2 x 4"):
        encoder.embed_images(PIXELS[:, :, :16])
