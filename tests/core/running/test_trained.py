"""A trained module from its run's folder, or what is wrong with the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trained_runs import captioning_experiment, write_run

from aimcore import recipe
from aimcore.contracts.errors import RunFolderError
from aimcore.engine import CheckpointDamaged, WeightsNotFinite
from aimcore.engine.manifest import Manifest, describe_files
from aimcore.running.recorded_recipes import experiment_of
from aimcore.running.trained_model import load_trained
from aimcore_trunks import ViT


def test_a_run_gives_its_experiment_and_weights(tmp_path: Path) -> None:
    module = write_run(tmp_path, captioning_experiment(), step=7)
    trained = load_trained(tmp_path)
    assert trained.experiment == captioning_experiment()
    assert trained.step == 7
    assert not trained.module.training
    state = trained.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_the_newest_checkpoint_counts(tmp_path: Path) -> None:
    write_run(tmp_path, captioning_experiment(), step=5)
    write_run(tmp_path, captioning_experiment(), step=12)
    assert load_trained(tmp_path).step == 12


def test_weights_that_were_changed_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, captioning_experiment(), step=5)
    (file,) = tmp_path.rglob("model.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=r"does not have the hash it was saved with.*resume that run"):
        load_trained(tmp_path)


def test_weights_of_another_recipe_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, captioning_experiment(), step=5)
    recipe.save(
        tmp_path / "recipe.json", captioning_experiment(trunk=ViT(width=32, depth=1, num_heads=2, patch_size=16))
    )
    with pytest.raises(RunFolderError, match=r"does not fit .*recipe.json: .*of another shape: trunk\.") as caught:
        load_trained(tmp_path)
    assert "put back the recipe that was trained" in str(caught.value)


def test_weights_that_diverged_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, captioning_experiment(), step=5)
    (file,) = tmp_path.rglob("model.safetensors")
    state = load_file(file)
    name = next(iter(state))
    state[name].view(-1)[0] = torch.nan
    save_file(state, file)
    (file.parent / "manifest.json").unlink()
    Manifest(5, 0.0, {}, describe_files(file.parent)).write(file.parent)
    with pytest.raises(WeightsNotFinite, match=rf"in {name} \(1 of \d+ values\)"):
        load_trained(tmp_path)


def test_a_run_that_is_not_done_has_no_weights(tmp_path: Path) -> None:
    write_run(tmp_path, captioning_experiment(), step=5)
    (file,) = tmp_path.rglob("model.safetensors")
    file.unlink()
    with pytest.raises(RunFolderError, match=r"has no weights yet: .* \(its last checkpoint is step_00000005\)"):
        load_trained(tmp_path)


def test_a_studys_folder_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "one", captioning_experiment(), step=5)
    with pytest.raises(RunFolderError, match=r"has no recipe.json; give one of the runs in it: one"):
        experiment_of(tmp_path)
