"""The Weights & Biases tracker: what it asks of wandb, by a stand-in; and wandb itself, offline, if it is there."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aimcore import InvalidValue
from aimcore_trackers.wandb import ID_FILE, TrackerUnavailable, Wandb


class StandIn:
    """Behaves as the parts of wandb that are used: steps ascend, a resumed run goes on behind its last step."""

    Error = RuntimeError

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.logged: list[int] = []
        self.exit_codes: list[int] = []
        self.summary: dict[str, str] = {}
        self.step = 0

    def init(self, **settings: Any) -> StandIn:
        self.inits.append(settings)
        self.id = settings["id"] or f"id{len(self.inits)}"
        if settings["id"] is None:
            self.step = 0
        return self

    def Settings(self, **settings: Any) -> SimpleNamespace:
        return SimpleNamespace(**settings)

    def log(self, metrics: dict[str, float], step: int) -> None:
        assert step >= self.step
        self.logged.append(step)
        self.step = step + 1

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", made)  # type: ignore[arg-type]
    return made


def run_of(tracker: Wandb, folder: Path, steps: range, status: str = "finished") -> None:
    run = tracker.open(str(folder), {"experiment": {"seed": 3}}, steps.start)
    for step in steps:
        run.log(step, {"lr": 0.5})
    run.close(status)


def test_a_run_is_named_by_its_folder_and_has_its_recipe(wandb: StandIn, tmp_path: Path) -> None:
    (tmp_path / "raster").mkdir()
    run_of(Wandb(project="orders", group="table", mode="offline"), tmp_path / "raster", range(2))
    (given,) = wandb.inits
    assert (given["name"], given["project"], given["group"], given["mode"]) == ("raster", "orders", "table", "offline")
    assert given["config"] == {"experiment": {"seed": 3}}


def test_a_resumed_run_goes_on_under_its_id_without_repeating_steps(wandb: StandIn, tmp_path: Path) -> None:
    run_of(Wandb(project="orders"), tmp_path, range(5), "interrupted")
    run_of(Wandb(project="orders"), tmp_path, range(3, 7))
    assert [(given["id"], given["resume"]) for given in wandb.inits] == [(None, None), ("id1", "allow")]
    assert wandb.logged == [0, 1, 2, 3, 4, 5, 6]


def test_a_run_that_begins_again_is_another_one(wandb: StandIn, tmp_path: Path) -> None:
    run_of(Wandb(project="orders"), tmp_path, range(2))
    run_of(Wandb(project="orders"), tmp_path, range(2))
    assert [given["id"] for given in wandb.inits] == [None, None]
    assert (tmp_path / ID_FILE).read_text() == "id2\n"


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("interrupted", 130), ("failed", 1)])
def test_how_the_run_ended_is_reported(wandb: StandIn, tmp_path: Path, status: str, code: int) -> None:
    run_of(Wandb(project="orders"), tmp_path, range(1), status)
    assert (wandb.summary, wandb.exit_codes) == ({"status": status}, [code])


def test_nobody_logged_in_is_an_error_that_says_what_to_do(
    wandb: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.Error("api_key not configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(TrackerUnavailable, match=r"api_key not configured.*'wandb login'.*'offline'"):
        Wandb(project="orders").open(str(tmp_path), {}, 0)


def test_a_project_is_needed() -> None:
    with pytest.raises(InvalidValue, match="project: must name a project"):
        Wandb(project="")


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra: pip install 'aimcore[wandb]'")
def test_wandb_itself_keeps_a_resumed_run_offline_under_one_id(tmp_path: Path) -> None:
    tracker = Wandb(project="orders", mode="offline")
    run_of(tracker, tmp_path, range(3), "interrupted")
    run_of(tracker, tmp_path, range(2, 4))
    run_id = (tmp_path / ID_FILE).read_text().strip()
    kept = sorted(path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert kept == [f"run-{run_id}.wandb"] * 2
