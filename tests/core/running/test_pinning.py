"""A recipe names its initial weights with their hash, whoever starts the run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from aimcore import Study, Weights
from aimcore.engine import WeightsNotFound, build_module
from aimcore.running.experiment_run import run_experiment
from aimcore.running.starting_points import pinned, pinned_study
from aimcore.running.study_run import run_study


@pytest.fixture
def fitted(tmp_path: Path, make_experiment: Any) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(build_module(make_experiment("other", seed=5)).state_dict(), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_that_is_found_is_written_in(make_experiment: Any, fitted: Path) -> None:
    one = make_experiment("one", initial_weights=Weights(url=str(fitted), part="all"))
    (again,) = pinned_study(Study(name="table", experiments=[one])).experiments
    assert again.initial_weights == Weights(url=str(fitted), part="all", sha256=digest(fitted))
    assert pinned(again) is again


def test_each_of_several_files_gets_its_hash(make_experiment: Any, fitted: Path, tmp_path: Path) -> None:
    trunk = tmp_path / "trunk.safetensors"
    save_file(build_module(make_experiment("other", seed=6)).trunk.state_dict(), trunk)
    head = {"url": str(fitted), "part": "head"}
    files = (Weights(url=str(trunk)), Weights(**head), Weights(experiment="earlier", part="other"))
    assert pinned(make_experiment("one", initial_weights=files)).initial_weights == (
        Weights(url=str(trunk), sha256=digest(trunk)),
        Weights(**head, sha256=digest(fitted)),
        Weights(experiment="earlier", part="other"),
    )


def test_an_experiment_without_initial_weights_stays_as_it_is(make_experiment: Any) -> None:
    one = make_experiment("one")
    assert pinned(one) is one


def test_weights_that_are_not_there_end_the_start(make_experiment: Any) -> None:
    with pytest.raises(WeightsNotFound, match="cannot read /nowhere"):
        pinned(make_experiment("one", initial_weights=Weights(url="/nowhere.safetensors")))


@pytest.mark.usefixtures("training")
def test_the_recipe_of_a_run_has_the_hash(make_experiment: Any, fitted: Path, tmp_path: Path) -> None:
    run_experiment(make_experiment("one", initial_weights=Weights(url=str(fitted))), tmp_path / "out")
    recipe = json.loads((tmp_path / "out" / "one" / "recipe.json").read_text())
    assert recipe["experiment"]["initial_weights"]["sha256"] == digest(fitted)


def test_a_study_is_resumed_where_the_file_is_the_same(
    make_experiment: Any, training: Any, fitted: Path, tmp_path: Path
) -> None:
    study = Study(name="table", experiments=[make_experiment("one", initial_weights=Weights(url=str(fitted)))])
    for resume in (False, True):
        run_study(study, tmp_path / "out", scale=None, resume=resume)
    assert training.calls == [("one", False)]
    save_file(build_module(make_experiment("other", seed=6)).state_dict(), fitted)
    with pytest.raises(ValueError, match=r"one differs in initial_weights.sha256 \(.{66} there, .{66} here\)"):
        run_study(study, tmp_path / "out", scale=None, resume=True)


@pytest.mark.usefixtures("training")
def test_probes_compare_with_fresh_weights(
    make_experiment: Any, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from aimcore_probes import LinearProbe

    given: list[Any] = []

    def probe(*trunks: Any, **_: Any) -> dict[str, Any]:
        given.append(trunks[-1].state_dict())  # experiment, trained, untrained
        return {}

    monkeypatch.setattr("aimcore.running.experiment_run.probe_experiment", probe)
    one = make_experiment("one", probes=(LinearProbe(),), initial_weights=Weights(url=str(fitted)))
    run_experiment(one, tmp_path / "out")
    fresh = build_module(make_experiment("one")).trunk.state_dict()
    assert all(torch.equal(given[0][name], value) for name, value in fresh.items())
