"""Pictures from a recipe and a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aimcore import Data, Experiment, Images, PatchGrid, component, recipe
from aimcore.contracts.errors import RecipeError
from aimcore.engine.manifest import Manifest, describe_files
from aimcore.report.sample_files import read_samples
from aimcore.report.sample_making import _order, compute_samples, samples_of
from aimcore.running.trained_model import load_trained
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Raster, Reversed
from aimcore_sources import BundledFashionMNIST, ImageFolder
from aimcore_targets import NormalizedPixels, Pixels
from aimcore_trunks import ViT


def experiment(**changes: Any) -> Experiment:
    source = BundledFashionMNIST(split="test")
    fields: dict[str, Any] = {
        "name": "tiny",
        "data": Data(train=source, validation=source, batch_size=4, image_size=28, eval_crop=1.0),
        "trunk": ViT(width=16, depth=2, num_heads=2, patch_size=7),
        "objective": NextPatch(ordering=Reversed(), head=LinearHead(), target=Pixels(), prefix=None),
        "num_steps": 2,
        "probe_attention": "causal",
    }
    return Experiment(**fields | changes)


def run_folder(folder: Path, made: Experiment, step: int = 2) -> Path:
    """A run that ended with the weights it began with."""
    torch.manual_seed(0)
    checkpoint = folder / "checkpoints" / f"step_{step:08d}"
    checkpoint.mkdir(parents=True)
    recipe.save(folder / "recipe.json", made)
    save_file(made.objective.build(made.trunk.build()).state_dict(), checkpoint / "model.safetensors")
    Manifest(step, 0.0, {}, describe_files(checkpoint)).write(checkpoint)
    return folder


def test_a_model_is_shown_by_its_order_its_predictions_and_its_attention(tmp_path: Path) -> None:
    found = samples_of(run_folder(tmp_path / "tiny", experiment()))
    assert found.order_N is not None
    assert found.predicted_BN is not None
    assert found.order_N.tolist() == list(range(15, -1, -1))
    assert found.predicted_BN.tolist() == [[True] * 15 + [False]] * 4
    assert found.absent == {}


def test_images_come_back_as_they_are_in_the_source(tmp_path: Path) -> None:
    found = samples_of(run_folder(tmp_path / "tiny", experiment()))
    source = BundledFashionMNIST(split="test").open()
    expected = [source.read(index).image[0].numpy() for index in (0, 1000, 1999, 2999)]
    assert found.images_BHWC is not None
    np.testing.assert_allclose(found.images_BHWC[..., 0].astype(int), np.stack(expected), atol=1)


def test_causal_attention_adds_up_to_one_and_is_blank_on_what_comes_later(tmp_path: Path) -> None:
    found = samples_of(run_folder(tmp_path / "tiny", experiment()))
    assert found.attention_BQN is not None
    assert found.queries_Q is not None
    # Read backwards, steps 4, 8 and 15 are the patches 11, 7 and 0, which see themselves and what stands behind them.
    assert found.queries_Q.tolist() == [11, 7, 0]
    seen = ~np.isnan(found.attention_BQN)
    assert seen[0].tolist() == [[place >= query for place in range(16)] for query in (11, 7, 0)]
    np.testing.assert_allclose(np.nansum(found.attention_BQN.astype(float), axis=2), 1, atol=2e-3)


@pytest.mark.parametrize(("target", "uses"), [(Pixels(), False), (NormalizedPixels(), True)])
def test_a_target_that_borrows_from_the_truth_is_found_out(target: Any, uses: bool, tmp_path: Path) -> None:
    objective = NextPatch(head=LinearHead(), target=target, prefix=None)
    assert samples_of(run_folder(tmp_path / "tiny", experiment(objective=objective))).uses_truth is uses


def test_they_are_kept_and_outlive_weights_and_data(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    first = samples_of(folder)
    (folder / "checkpoints/step_00000002/model.safetensors").unlink()
    (folder / "recipe.json").unlink()
    kept = samples_of(folder)
    assert kept.made_from == first.made_from != ""
    np.testing.assert_array_equal(kept.images_BHWC, first.images_BHWC)


def test_they_are_computed_again_for_a_later_step(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    samples_of(folder)
    run_folder(tmp_path / "tiny", experiment(), step=4)
    assert " 4 " in samples_of(folder).made_from
    assert " 4 " in read_samples(folder / "samples.npz").made_from


def test_damaged_ones_are_computed_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    (folder / "samples.npz").write_bytes(b"PK")
    assert samples_of(folder).images_BHWC is not None
    assert read_samples(folder / "samples.npz").images_BHWC is not None


def test_without_weights_there_is_still_the_order(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    (folder / "checkpoints/step_00000002/model.safetensors").unlink()
    found = samples_of(folder)
    assert found.order_N is not None
    assert found.absent["predictions"] == "there are no weights: no complete checkpoint in tiny has a model.safetensors"
    assert not (folder / "samples.npz").exists()


def test_weights_that_were_changed_are_not_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    path = folder / "checkpoints/step_00000002/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a number of a tensor: the file is as sound as before
    path.write_bytes(content)
    found = samples_of(folder)
    assert "does not have the hash it was saved with" in found.absent["predictions"]
    assert not (folder / "samples.npz").exists()


@pytest.mark.parametrize("damage", ["cut", "other model"])
def test_weights_that_do_not_fit_are_reported(damage: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    path = folder / "checkpoints/step_00000002/model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({"other": torch.zeros(1)}, path)
    found = samples_of(folder)
    assert found.order_N is not None
    assert "the model or its images cannot be read" in found.absent["attention"]


def test_images_that_are_gone_are_reported(tmp_path: Path) -> None:
    data = Data(
        train=BundledFashionMNIST(), validation=ImageFolder(url=str(tmp_path / "gone")), batch_size=4, image_size=28
    )
    found = samples_of(run_folder(tmp_path / "tiny", experiment(data=data)))
    assert str(tmp_path / "gone") in found.absent["images"]


def test_what_a_trunk_or_target_does_not_offer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError("not shown")

    monkeypatch.setattr("aimcore_trunks.vit.ViTModule.attention_maps", refuse)
    monkeypatch.setattr("aimcore_targets.pixels.Pixels.to_patches", refuse)
    folder = run_folder(tmp_path / "tiny", experiment())
    found = compute_samples(experiment(), load_trained(folder).module, "")
    assert found.absent == {"predictions": "not shown", "attention": "not shown"}
    assert found.images_BHWC is not None


def test_a_mistake_in_a_plugin_costs_its_picture_alone_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    with monkeypatch.context() as patch:
        patch.setattr("aimcore_targets.pixels.Pixels.to_patches", lambda *_: {}["nothing"])
        found = samples_of(folder)
    assert found.absent == {"predictions": "computing it failed: KeyError: 'nothing'"}
    assert found.attention_BQN is not None
    assert samples_of(folder).absent == {}


def test_a_folder_with_nothing_to_go_by_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no file"):
        samples_of(tmp_path)


def test_unfinished_checkpoints_do_not_count(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    (folder / "checkpoints/step_00000002/manifest.json").unlink()
    assert "there are no weights" in samples_of(folder).absent["images"]


def test_the_global_random_numbers_are_left_alone(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "tiny", experiment())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    samples_of(folder)
    assert torch.equal(torch.get_rng_state(), before)


@component("own_orders")
class OwnOrders(Raster):
    """Begins with another patch in every second sample."""

    def orders(self, images: Images, sample_numbers_B: torch.Tensor, seed: int) -> torch.Tensor:
        orders_BN = super().orders(images, sample_numbers_B, seed).clone()
        orders_BN[sample_numbers_B % 2 == 1] = orders_BN[sample_numbers_B % 2 == 1].flip(1)
        return orders_BN


@pytest.mark.parametrize("ordering", [OwnOrders(), Reversed()])
def test_an_order_per_sample_is_found_and_that_of_sample_0_is_drawn(ordering: Raster) -> None:
    made = experiment(objective=NextPatch(ordering=ordering, head=LinearHead(), target=Pixels(), prefix=None))
    found, absent = _order(made, PatchGrid(4, 4))
    assert absent == {}
    assert found["order_is_own"] is isinstance(ordering, OwnOrders)
    first = range(16) if isinstance(ordering, OwnOrders) else range(15, -1, -1)
    assert found["order_N"].tolist() == [*first]
