"""Experiments that train nothing: a frozen trunk is a row of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from aimcore import Data, Experiment, InvalidValue, Study, Weights
from aimcore.engine.cost import cost_of
from aimcore.report import read_summary
from aimcore.run import command
from aimcore.running.preflight import check_study
from aimcore.running.reprobing import probe_again
from aimcore.running.study_run import run_study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch, NoTraining
from aimcore_probes import KNNProbe
from aimcore_sources import ImageFolder
from aimcore_trunks import ViT

TRUNK = ViT(width=8, depth=1, num_heads=2, patch_size=8)


@pytest.fixture
def pictures(tmp_path: Path) -> ImageFolder:
    for colour in ("blue", "red"):
        (tmp_path / "pictures" / colour).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (16 + number, 16), colour).save(tmp_path / "pictures" / colour / f"{number}.png")
    return ImageFolder(url=str(tmp_path / "pictures"))


def baseline(source: ImageFolder, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": "frozen",
        "data": Data(train=source, validation=source, batch_size=3, image_size=16),
        "trunk": TRUNK,
        "objective": NoTraining(),
        "num_steps": 0,
        "probes": (KNNProbe(k=1),),
    }
    return Experiment(**fields | changes)


def weights_file(folder: Path) -> str:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {name: value + 1.0 for name, value in TRUNK.build().state_dict().items()}
    save_file(state, folder / "trunk.safetensors")
    return str(folder / "trunk.safetensors")


def test_a_study_of_baselines_is_probed_and_nothing_is_trained(pictures: ImageFolder, tmp_path: Path) -> None:
    out, begun = tmp_path / "out", Weights(url=weights_file(tmp_path))
    experiments = [baseline(pictures), baseline(pictures, name="begun", initial_weights=begun)]
    run_study(Study(name="baselines", experiments=experiments), out, scale=None)
    fresh, with_weights = read_summary(out / "summary.json").experiments
    assert (fresh.status, fresh.num_steps, fresh.losses) == ("finished", 0, None)
    assert fresh.probes is not None
    assert with_weights.probes is not None
    # The fresh trunk is the untrained one itself; the other one is compared with it.
    assert fresh.probes["knn"].untrained_top1 is None
    assert with_weights.probes["knn"].untrained_top1 == fresh.probes["knn"].top1 == 1.0
    assert fresh.probes["knn"].raw_pixels_top1 == 1.0
    assert not (out / "frozen" / "checkpoints").exists()


def test_a_baseline_is_probed_again_with_the_weights_of_its_recipe(pictures: ImageFolder, tmp_path: Path) -> None:
    out, url = tmp_path / "out", weights_file(tmp_path)
    study = Study(name="baselines", experiments=[baseline(pictures, initial_weights=Weights(url=url))])
    run_study(study, out, scale=None)
    (entry,) = probe_again(out / "frozen", ['probes=[{"name": "knn", "k": 2}]']).experiments
    assert entry.status == "finished"
    assert entry.extra["probed_later"]["knn"]["probes"][0]["k"] == 2
    Path(url).write_bytes(b"something else")
    with pytest.raises(Exception, match=r"has sha256|not a safetensors"):
        probe_again(out / "frozen")


def test_it_is_validated_if_all_its_weights_are_given(pictures: ImageFolder, tmp_path: Path) -> None:
    trained = baseline(pictures, name="trained", num_steps=2, objective=NextPatch(head=LinearHead()), probes=())
    whole = {"num_steps": 0, "objective": trained.objective, "probes": ()}
    again = baseline(pictures, name="again", initial_weights=Weights(experiment="trained", part="all"), **whole)
    headless = baseline(pictures, name="headless", initial_weights=Weights(experiment="trained"), **whole)
    study = Study(name="baselines", experiments=[trained, again, headless])
    first, second, third = run_study(study, tmp_path / "out", scale=None).experiments
    assert first.losses is not None
    assert second.losses is not None
    assert second.losses["next_patch"].validation == first.losses["next_patch"].validation
    assert third.losses is None  # its head is random


def test_only_an_objective_with_losses_is_validated(pictures: ImageFolder) -> None:
    whole = Weights(url="model.safetensors", part="all")
    objective = NextPatch(head=LinearHead())
    assert baseline(pictures, objective=objective, initial_weights=whole).is_validated
    assert not baseline(pictures, objective=objective, initial_weights=Weights(url="trunk.safetensors")).is_validated
    assert not baseline(pictures, initial_weights=whole).is_validated


def test_its_report_is_drawn_and_runs_are_listed(
    pictures: ImageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_study(Study(name="baselines", experiments=[baseline(pictures)]), out, scale=None)
    assert command(["report", str(out)]) == 0
    assert command(["runs", str(out)]) == 0
    assert "0/0" in capsys.readouterr().out


def test_checks_of_training_do_not_apply(pictures: ImageFolder) -> None:
    # Three images do not divide over two processes: what is not trained has no batches.
    check_study(Study(name="baselines", experiments=[baseline(pictures)]), world_size=2)
    trained = baseline(pictures, num_steps=1, objective=NextPatch(head=LinearHead()))
    with pytest.raises(InvalidValue, match="data"):
        check_study(Study(name="baselines", experiments=[trained]), world_size=2)


def test_an_objective_without_losses_trains_nothing(pictures: ImageFolder) -> None:
    with pytest.raises(InvalidValue, match="num_steps: must be 0 with objective 'no_training', which has no losses"):
        baseline(pictures, num_steps=1)


def test_no_run_begins_with_what_a_baseline_trained(pictures: ImageFolder) -> None:
    later = baseline(pictures, name="later", initial_weights=Weights(experiment="frozen"))
    with pytest.raises(InvalidValue, match="'frozen' trains nothing, so that it has no weights of its own"):
        check_study(Study(name="baselines", experiments=[baseline(pictures), later]))


def test_its_cost_is_that_of_reading(pictures: ImageFolder) -> None:
    whole = cost_of(baseline(pictures))
    trained = cost_of(baseline(pictures, num_steps=1, objective=NextPatch(head=LinearHead())))
    assert whole.trunk_parameters == trained.trunk_parameters == whole.parameters
    assert (whole.flops_per_run, whole.state.gradients, whole.state.optimizer) == (0, 0, 0)
    # By hand, per patch of 8 x 8 x 3 values and width 8, a multiply-add being 2: embedding, q k v and output, both
    # layers of the FFN, and attention over 4 patches (two products of 8 values per pair).
    per_patch = 2 * (192 * 8 + 4 * 8 * 8 + 2 * 8 * 32 + 2 * 4 * 8)
    assert whole.flops_per_image == 4 * per_patch


def test_a_dry_run_shows_it(pictures: ImageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aimcore import recipe

    recipe.save(tmp_path / "recipe.json", attrs.evolve(baseline(pictures)))
    assert command(["run", str(tmp_path / "recipe.json"), "--dry-run"]) == 0
    assert "a frozen baseline" in capsys.readouterr().out
