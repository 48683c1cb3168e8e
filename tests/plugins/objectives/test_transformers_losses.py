"""CLIP and SigLIP of transformers are trained: with the losses of transformers, on any engine, and out again."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import transformers
from core.engine.toys import experiment
from PIL import Image
from safetensors.torch import load_file
from small_towers import MAKERS, TEXTS, image_tower, untrained
from torch import Tensor

import aimcore_layouts
from aimcore import (
    Augmentation,
    Batch,
    Data,
    Encoder,
    Engine,
    Experiment,
    InvalidValue,
    Study,
    Weights,
    load_encoder,
    recipe,
)
from aimcore.contracts.images import images_of
from aimcore.encoders.export import export_encoder
from aimcore.engine import TrainingEngine, build_module, read_metrics, train
from aimcore.engine.parameter_groups import parameter_groups
from aimcore.engine.recomputation import blocks_of
from aimcore.running.study_run import run_study
from aimcore.testing.fixtures import as_float32, batch_for, random_images
from aimcore_evaluations import ZeroShot
from aimcore_optimizers import AdamW
from aimcore_sources import CaptionedFolder, ImageFolder
from aimcore_trunks import ViT

FAMILIES = ("clip", "siglip")
LOSSES = {"clip": "softmax", "siglip": "sigmoid"}


def opened(family: str, folder: Path) -> tuple[Any, Encoder, Any]:
    """The model of transformers, its encoder, and its objective with the loss of the family."""
    torch.manual_seed(0)
    model, _ = MAKERS[family](folder)
    encoder = load_encoder(str(folder))
    return model, encoder, attrs.evolve(encoder.objective, loss=LOSSES[family])  # type: ignore[arg-type, misc]


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model, encoder, objective = opened(family, tmp_path)
    module = objective.build(encoder.trunk.build()).train()
    module.load_state_dict(encoder.state())
    pixels_BCHW, text = torch.randn(4, 3, 16, 16), objective.tokenizer.encode(TEXTS, 9)
    batch = Batch(images=images_of(pixels_BCHW, 8), sample_numbers_B=torch.arange(4), text=text)
    loss = module(batch)["contrastive"]
    assert module.counts(batch) == {"contrastive": 4} == {"contrastive": int(loss.num_targets)}
    (loss.sum / loss.num_targets).backward()
    theirs = model.train()(input_ids=text.ids_BT, pixel_values=pixels_BCHW, return_loss=True).loss
    theirs.backward()
    torch.testing.assert_close(loss.sum / 4, theirs, rtol=1e-5, atol=1e-6)
    gradients = {name: value.grad for name, value in module.named_parameters()}
    layout = {"clip": "CLIPTransformers", "siglip": "SigLIPTransformers"}[family]
    written = getattr(aimcore_layouts, layout)().write(gradients)
    expected = {name: value.grad for name, value in model.named_parameters()}
    assert written.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            written[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def steps(objective: Any, **engine: Any) -> tuple[list[tuple[dict[str, float], float]], dict[str, Tensor]]:
    """Losses and gradient norms of three steps, and the weights after them."""
    settings = Engine(**{"precision": "fp32", "num_threads": 1, **engine})
    made = experiment(trunk=image_tower(objective), objective=objective, engine=settings, batch_size=4)
    with TrainingEngine(made) as training:
        found = []
        for step in range(3):
            batch = as_float32(batch_for(objective, random_images(number=4, seed=step), seed=step))
            result = training.step([batch])
            found.append((dict(result.losses), result.gradient_norm))
        return found, training.full_state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_zero_stage_trains_alike_and_activations_are_recomputed(family: str) -> None:
    objective = untrained(family)
    plain, weights = steps(objective)
    for stage in (1, 2, 3):
        found, _ = steps(objective, zero_stage=stage)
        assert [losses for losses, _ in found] == [pytest.approx(losses, rel=1e-5) for losses, _ in plain]
    again, recomputed = steps(objective, checkpoint_activations=True)
    assert again == plain
    assert all(torch.equal(value, recomputed[name]) for name, value in weights.items())
    module = build_module(experiment(trunk=image_tower(objective), objective=objective))
    assert len(blocks_of(module)) == 4  # two of either tower
    for (losses, norm), (expected, _) in zip(steps(objective, precision="autocast")[0], plain, strict=True):
        assert math.isfinite(norm)
        assert losses == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_queries_and_the_scale_do_not_decay(family: str) -> None:
    objective = untrained(family)
    module = build_module(experiment(trunk=image_tower(objective), objective=objective))
    groups = parameter_groups(module, AdamW())
    kept = {id(value) for group in groups if not group.decays for value in group.parameters}
    names = {name for name, value in module.named_parameters() if id(value) in kept and value.dim() > 1}
    assert {name for name in names if not name.startswith("trunk.")} == {
        "text_tower.model.embeddings.position_embedding.weight",
        *(() if family == "clip" else ("image_tower.head.probe",)),
    }
    assert id(module.scale.log_scale) in kept


def test_the_scale_begins_as_in_the_papers() -> None:
    clip, siglip = (untrained(family).build(image_tower(untrained(family)).build()).scale for family in FAMILIES)
    one = torch.ones(1)
    assert clip(one).item() == pytest.approx(1 / 0.07)
    assert siglip(one).item() == pytest.approx(10 - 10, abs=1e-5)
    assert siglip(0 * one).item() == -10


def test_the_norm_of_clips_class_token_is_a_part_of_the_trunk_alone() -> None:
    objective = untrained("clip")
    module = objective.build(image_tower(objective).build())
    assert {name for name in module.state_dict() if "image_tower" in name} == {"image_tower.project.weight"}
    for one in (module, copy.deepcopy(module)):
        assert one.image_tower.norm is one.trunk.model.post_layernorm  # type: ignore[union-attr]
    around = objective.build(ViT(width=16, depth=1, num_heads=2, patch_size=4, num_extra=1).build())
    assert "image_tower.norm.weight" in around.state_dict()  # a trunk without one


def test_what_cannot_be_trained_is_refused() -> None:
    clip, siglip = untrained("clip"), untrained("siglip")
    with pytest.raises(InvalidValue, match=r"loss: must be 'softmax' \(or None\) for a model of clip, got 'sigmoid'"):
        attrs.evolve(clip, loss="sigmoid")  # type: ignore[misc]
    with pytest.raises(InvalidValue, match=r"loss: must be 'sigmoid' \(or None\) for a model of siglip, got 'softmax'"):
        attrs.evolve(siglip, loss="softmax")  # type: ignore[misc]
    trunk = image_tower(siglip)
    with pytest.raises(InvalidValue, match=r"must be 0 with objective 'transformers_towers'.*describe objectives/tr"):
        experiment(trunk=trunk, objective=attrs.evolve(siglip, loss=None))  # type: ignore[misc]
    with pytest.raises(InvalidValue, match="'transformers_towers' uses the samples of a batch together"):
        experiment(trunk=trunk, objective=siglip, accumulation_steps=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes, of which every image has a caption."""
    lines, places = [], ("", "a ", "photo of a ", "a photo of a ")
    for colour in ("cat", "dog"):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        for number, words in enumerate(places):
            shown = (30 * number, 220, 90) if colour == "cat" else (220, 90, 30 * number)
            Image.new("RGB", (16, 16), shown).save(tmp_path / "pictures" / colour / f"{number}.png")
            lines.append(json.dumps({"file": f"{colour}/{number}.png", "caption": f"{words}{colour}"}))
    (tmp_path / "pictures/captions.jsonl").write_text("\n".join(lines))
    return tmp_path / "pictures"


def tuning(encoder: Encoder, objective: Any, pictures: Path, **changes: Any) -> Experiment:
    source, labelled, fields = CaptionedFolder(url=str(pictures)), ImageFolder(url=str(pictures)), encoder.to_recipe()
    data = Data(
        train=source, validation=source, batch_size=4, image_size=16, probe_train=labelled, probe_test=labelled,
        mean=fields["data"]["mean"], std=fields["data"]["std"], eval_crop=1.0,
        augmentation=Augmentation(crop_scale=(1.0, 1.0)),
    )  # fmt: skip
    own: dict[str, Any] = {
        "name": "tuned", "data": data, "trunk": encoder.trunk, "objective": objective, "num_steps": 250, "probes": (),
        "initial_weights": Weights(url=encoder.source.url, part="all"), "evaluations": (ZeroShot(),),
        "optimizer": AdamW(peak_lr=3e-3), "engine": Engine(precision="fp32", num_threads=1), "log_every": 1,
    }  # fmt: skip
    return Experiment(**{**own, **changes})


def losses_in(run: Path) -> list[float]:
    return [line["losses"]["contrastive"] for line in read_metrics(run)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_tunes_the_towers_and_transformers_opens_them(family: str, pictures: Path, tmp_path: Path) -> None:
    _, encoder, objective = opened(family, tmp_path / "model")
    made = tuning(encoder, objective, pictures)
    recipe.save(tmp_path / "recipe.json", made)
    assert recipe.load(tmp_path / "recipe.json") == made
    run_study(Study(name="study", experiments=[made]), tmp_path / "runs", scale=None)
    (entry,) = json.loads((tmp_path / "runs/summary.json").read_text())["experiments"]
    losses = losses_in(tmp_path / "runs/tuned")
    # What logits that do not depend on the pair give at best: log 4, and 4 times the entropy of one pair in four.
    chance = math.log(4) if family == "clip" else math.log(4) + 3 * math.log(4 / 3)
    assert sum(losses[-10:]) / 10 < 0.75 * chance < chance < losses[0]
    tuned = load_encoder(str(tmp_path / "runs/tuned"))
    export_encoder(tuned, tmp_path / "out", "transformers")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "out"))
    assert before.keys() == after.keys()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == before.keys()
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    inputs = transformers.AutoProcessor.from_pretrained(tmp_path / "out")(
        images=[Image.open(path) for path in sorted((tmp_path / "pictures").rglob("*.png"))], text=["cat", "dog"],
        padding="max_length", truncation=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        theirs = model(**inputs)
    mine = tuned.zero_shot(inputs["pixel_values"], ["cat", "dog"])
    torch.testing.assert_close(mine, theirs.logits_per_image, rtol=1e-4, atol=1e-4)
    right = theirs.logits_per_image.argmax(1) == torch.tensor([0] * 4 + [1] * 4)
    assert entry["evaluations"]["zero_shot/top1"]["value"] == right.float().mean() > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interrupted_run_goes_on_bit_for_bit(family: str, pictures: Path, tmp_path: Path) -> None:
    _, encoder, objective = opened(family, tmp_path / "model")
    whole = tuning(encoder, objective, pictures, num_steps=6, checkpoint_every=3)
    train(whole, tmp_path / "whole", progress=False).engine.close()
    train(whole, tmp_path / "cut", progress=False).engine.close()
    shutil.rmtree(tmp_path / "cut/checkpoints/step_00000006")
    train(whole, tmp_path / "cut", resume=True, progress=False).engine.close()
    assert losses_in(tmp_path / "cut") == losses_in(tmp_path / "whole")
    one, other = (
        load_file(tmp_path / name / "checkpoints/step_00000006/model.safetensors") for name in ("whole", "cut")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_locked_image_tower_stays_as_it_was(family: str, pictures: Path, tmp_path: Path) -> None:
    _, encoder, objective = opened(family, tmp_path / "model")
    made = tuning(encoder, objective, pictures, num_steps=4, frozen=("trunk", "image_tower", "scale"))
    train(made, tmp_path / "tuned", progress=False).engine.close()
    recipe.save(tmp_path / "tuned/recipe.json", made)
    before, after = encoder.state(), load_encoder(str(tmp_path / "tuned")).state()
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith("text_tower."), name
