"""Runs that begin with what another one of their study left: checked before time is spent, and found when it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from aimcore import Branch, Experiment, Schedule, Study, Weights, recipe
from aimcore.contracts.errors import InvalidValue
from aimcore.engine import NothingToBeginWith, initial_module
from aimcore.report import read_summary
from aimcore.running.experiment_run import run_experiment
from aimcore.running.preflight import check_study
from aimcore.running.starting_points import with_parent
from aimcore.running.study_files import load_study, selected
from aimcore.running.study_run import run_study
from aimcore_heads import LinearHead, TransformerHead
from aimcore_objectives import NextPatch
from aimcore_optimizers import AdamW
from aimcore_trunks import ViT

Make = Callable[..., Experiment]
LONG = Schedule(warmup_steps=1, decay="half_cosine")
PARTS = (Weights(experiment="long"), Weights(experiment="cooled", part="head"))


def cooling(steps: int, *, horizon: int = 6) -> Schedule:
    return Schedule(warmup_steps=1, decay="half_cosine", decay_steps=horizon, cooldown_steps=steps)


@pytest.fixture
def make(make_experiment: Make) -> Make:
    """Experiments of a long run's kind: six steps, a checkpoint after every second."""
    return lambda name, **changes: make_experiment(
        name, **{"num_steps": 6, "schedule": LONG, "checkpoint_every": 2, "engine": one_thread()} | changes
    )


def one_thread() -> Any:
    from aimcore import Engine

    return Engine(precision="fp32", num_threads=1)


@pytest.fixture
def branch(make: Make) -> Make:
    """Branches that leave a long run at step 4 and cool down for 1 step."""
    return lambda name="cooled", step=4, **changes: make(
        name, **{"branch": Branch(experiment="long", step=step), "num_steps": 5, "schedule": cooling(1)} | changes
    )


def study(*experiments: Experiment) -> Study:
    return Study(name="table", experiments=experiments)


def problems(*experiments: Experiment, out: Path | None = None, **parts: Any) -> dict[str, str]:
    """What is wrong, by its path."""
    with pytest.raises(InvalidValue) as caught:
        check_study(attrs.evolve(study(*experiments), **parts), with_data=False, out=out)  # type: ignore[misc]
    return dict(caught.value.problems)


def test_a_branch_with_its_own_schedule_length_and_probes_passes(make: Make, branch: Make) -> None:
    one = branch(probe_attention="causal", log_every=2, checkpoint_every=None)
    late = branch("late", step=6, num_steps=8, schedule=cooling(2))
    check_study(study(make("long"), one, late), with_data=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 1}, r"seed (0, here 1)"),
        ({"optimizer": AdamW(peak_lr=2e-3)}, r"optimizer.peak_lr (0.001, here 0.002)"),
        ({"trunk": ViT(width=16, depth=2, num_heads=2, patch_size=14)}, r"trunk.depth (1, here 2)"),
    ],
)
def test_a_branch_is_otherwise_equal_to_the_run_it_leaves(
    changes: dict[str, Any], expected: str, make: Make, branch: Make
) -> None:
    found = problems(make("long"), branch(**changes))
    assert found["cooled.branch"].endswith(f"differs in {expected}")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # The horizon of the branch's own length makes the half-cosine steeper from its first step on.
        (attrs.evolve(cooling(1), decay_steps=None), "at step 2 it gives"),
        (attrs.evolve(cooling(1), warmup_steps=2), "at step 1 it gives"),
        (cooling(3), "at step 3 it gives"),
        (Schedule(warmup_steps=1, decay="constant"), "at step 2 it gives 0.001, not"),
    ],
)
def test_the_rates_before_the_branch_must_be_those_of_the_run_it_leaves(
    schedule: Schedule, expected: str, make: Make, branch: Make
) -> None:
    found = problems(make("long"), branch(schedule=schedule))
    assert found.keys() == {"cooled.schedule"}
    assert expected in found["cooled.schedule"]
    assert "set decay_steps to 6" in found["cooled.schedule"]


def test_rates_are_equal_that_are_written_in_another_way(make: Make, branch: Make) -> None:
    constant = Schedule(warmup_steps=1, decay="constant")
    cooled = attrs.evolve(constant, cooldown_steps=1)
    check_study(study(make("long", schedule=constant), branch(schedule=cooled)), with_data=False)


@pytest.mark.parametrize(
    ("step", "changes", "expected"),
    [
        (3, {}, "'long' has no checkpoint at step 3: it saves every 2 steps and at its end (6)"),
        (4, {"checkpoint_every": None}, "'long' has no checkpoint at step 4: it saves at its end"),
        (8, {}, "'long' ends at step 6, before step 8"),
    ],
)
def test_the_run_it_leaves_has_a_checkpoint_there(
    step: int, changes: dict[str, Any], expected: str, make: Make, branch: Make
) -> None:
    cooled = branch(step=step, num_steps=step + 1, schedule=cooling(1, horizon=9))
    found = problems(make("long", schedule=attrs.evolve(LONG, decay_steps=9), **changes), cooled)
    assert found["cooled.branch.step"] == expected


def test_a_branch_of_a_branch_leaves_after_that_has_begun(make: Make, branch: Make) -> None:
    second = branch("second", branch=Branch(experiment="cooled", step=4), num_steps=6)
    found = problems(make("long"), branch(), second)
    assert found["second.branch.step"] == "'cooled' is also a branch, and begins at step 4"


def test_the_other_run_must_come_before(make: Make, branch: Make) -> None:
    assert problems(branch(), make("long"))["cooled.branch.experiment"] == (
        "'long' must come before 'cooled' in the study"
    )
    weights = make("tuned", initial_weights=Weights(experiment="tuned"))
    assert "must come before" in problems(weights)["tuned.initial_weights.experiment"]


def test_a_run_that_does_not_exist_is_reported(branch: Make, tmp_path: Path) -> None:
    expected = problems(branch(), out=tmp_path)["cooled.branch.experiment"]
    assert expected.startswith("no experiment called 'long' is earlier in the study (cooled), nor was one run in")
    assert expected.endswith("run the whole study, or give the folder it was run in, by --out DIR --resume")


def test_a_run_that_is_left_out_and_was_not_run_is_reported(make: Make, branch: Make, tmp_path: Path) -> None:
    only = selected(study(make("long"), branch()), ["cooled"])
    expected = problems(*only.experiments, left_out=only.left_out, out=tmp_path)["cooled.branch.experiment"]
    assert expected == f"{tmp_path} holds no run of 'long': run it too (--only long), or --resume where it was run"
    check_study(only, with_data=False)
    seeds = only.over_seeds(1)
    (expected,) = problems(*seeds.experiments, left_out=seeds.left_out, out=tmp_path).values()
    assert "holds no run of 'long-seed-0': run it too (--only long), or" in expected


def test_weights_that_will_not_fit_are_reported_before_anything_runs(make: Make) -> None:
    wider = make("tuned", trunk=ViT(width=32, depth=1, num_heads=2, patch_size=14))
    weights = attrs.evolve(wider, initial_weights=Weights(experiment="long"))  # type: ignore[misc]
    expected = problems(make("long"), weights)["tuned.initial_weights"]
    assert expected.startswith("initial weights: what experiment 'long' ends with does not fit: of another shape: ")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long run, a branch of it, a run that begins with the branch's weights, and one with those of both; trained."""
    from core.running.conftest import _experiment

    out = tmp_path_factory.mktemp("ran")
    fields = {"schedule": LONG, "checkpoint_every": 2, "engine": one_thread()}
    long = _experiment("long", num_steps=6, **fields)
    left = {"branch": Branch(experiment="long", step=2), "num_steps": 3, "schedule": cooling(1)}
    cooled = _experiment("cooled", **fields | left)
    tuned = _experiment("tuned", num_steps=1, engine=one_thread(), initial_weights=Weights(experiment="cooled"))
    both = _experiment("both", num_steps=1, engine=one_thread(), initial_weights=PARTS)
    # As --only would: the long run keeps what a branch needs that is not to be run now.
    run_study(selected(study(long, cooled, tuned, both), ["long"]), out, scale=None)
    run_study(study(long, cooled, tuned, both), out, scale=None, resume=True)
    return out


@pytest.fixture
def out(ran: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ran, tmp_path / "out"))


def recorded(out: Path, name: str) -> Experiment:
    return recipe.load(out / name / "recipe.json")


def test_everything_is_run_and_says_what_it_began_with(ran: Path) -> None:
    entries = {entry.name: entry for entry in read_summary(ran / "summary.json").experiments}
    assert [(entry.status, entry.num_steps) for entry in entries.values()] == [
        ("finished", 6), ("finished", 3), ("finished", 1), ("finished", 1),
    ]  # fmt: skip
    assert entries["cooled"].extra["begun_with"] == {"experiment": "long", "step": 2}
    assert entries["tuned"].extra["begun_with"]["experiment"] == "cooled"


def test_the_hash_of_the_weights_is_recorded_and_the_recipe_keeps_the_name(ran: Path) -> None:
    manifest = json.loads((ran / "cooled" / "checkpoints" / "step_00000003" / "manifest.json").read_text())
    entry = read_summary(ran / "summary.json").of("tuned")
    assert entry is not None
    assert entry.extra["begun_with"]["sha256"] == manifest["files"]["model.safetensors"]["sha256"]
    assert recorded(ran, "tuned").initial_weights == Weights(experiment="cooled")


def test_training_begins_with_the_trunk_the_other_run_ended_with(ran: Path) -> None:
    from safetensors.torch import load_file

    found = initial_module(with_parent(recorded(ran, "tuned"), ran)[0]).trunk.state_dict()
    ended = load_file(ran / "cooled" / "checkpoints" / "step_00000003" / "model.safetensors")
    assert all(torch.equal(value, ended[f"trunk.{name}"]) for name, value in found.items())


def test_a_branch_alone_goes_on_where_the_run_it_leaves_is_there(out: Path) -> None:
    cooled = recorded(out, "cooled")
    shutil.rmtree(out / "cooled")
    only = selected(study(recorded(out, "long"), cooled), ["cooled"])
    check_study(only, out=out)
    entry = run_experiment(cooled, out)
    assert (entry.status, entry.num_steps) == ("finished", 3)


def test_a_branch_of_a_step_that_was_not_kept_is_reported(out: Path) -> None:
    late = attrs.evolve(  # type: ignore[misc]
        recorded(out, "cooled"), name="late", branch=Branch(experiment="long", step=3), num_steps=4
    )
    long = attrs.evolve(recorded(out, "long"), checkpoint_every=1)  # type: ignore[misc]
    recipe.save(out / "long" / "recipe.json", long)
    expected = problems(long, late, out=out)["late.branch.step"]
    assert "long holds no checkpoint of step 3 (of these steps: 2, 4, 6)" in expected
    assert expected.endswith("run it again in another --out")


def test_a_branchs_recipe_alone_has_nothing_to_begin_with(out: Path, tmp_path: Path) -> None:
    alone = load_study(out / "cooled" / "recipe.json", "small")
    with pytest.raises(InvalidValue, match=r"branch\.experiment: no experiment called 'long' is earlier in the study"):
        check_study(alone, with_data=False, out=tmp_path / "new")
    with pytest.raises(InvalidValue, match=r"^experiment 'cooled': branch\.experiment: no experiment called 'long'"):
        run_experiment(alone.experiments[0], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_changed_since_is_not_branched_from(out: Path) -> None:
    recipe.save(out / "long" / "recipe.json", attrs.evolve(recorded(out, "long"), seed=3))  # type: ignore[misc]
    shutil.rmtree(out / "cooled" / "checkpoints")
    with pytest.raises(InvalidValue, match=r"differs in seed \(3, here 0\)"):
        run_experiment(recorded(out, "cooled"), out)


def test_weights_of_a_run_that_did_not_come_to_its_end_are_reported(out: Path) -> None:
    shutil.rmtree(out / "cooled" / "checkpoints")
    with pytest.raises(
        NothingToBeginWith, match="cooled holds no weights of a run that was trained to its end: run cooled"
    ):
        with_parent(recorded(out, "tuned"), out)
    expected = problems(recorded(out, "tuned"), out=out)["tuned.initial_weights.experiment"]
    assert "cooled holds no weights of a run that was trained to its end" in expected


def test_weights_that_changed_since_are_refused(out: Path) -> None:
    from aimcore.engine import CheckpointDamaged

    path = out / "cooled" / "checkpoints" / "step_00000003" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors does not have the hash it was saved with"):
        with_parent(recorded(out, "tuned"), out)


def test_weights_outside_the_study_are_not_read(out: Path, tmp_path: Path) -> None:
    (out / "cooled").rename(tmp_path / "elsewhere")
    (out / "cooled").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NothingToBeginWith, match="leads out of the study's folder"):
        with_parent(recorded(out, "tuned"), out)


def test_kept_steps_are_those_of_all_branches(make: Make, branch: Make, training: Any, tmp_path: Path) -> None:
    whole = study(make("long"), branch("a", step=2, num_steps=3), branch("b"))
    run_study(selected(whole, ["long"]), tmp_path, scale=None)
    assert training.kept == {"long": {2, 4}}


def test_a_run_takes_the_trunk_of_one_run_and_the_head_of_another(ran: Path) -> None:
    from safetensors.torch import load_file

    files = {
        name: ran / name / "checkpoints" / step / "model.safetensors"
        for name, step in (("long", "step_00000006"), ("cooled", "step_00000003"))
    }
    long, cooled = (load_file(path) for path in files.values())
    assert recorded(ran, "both").initial_weights == PARTS
    found = initial_module(with_parent(recorded(ran, "both"), ran)[0]).state_dict()
    assert found.keys() == long.keys()
    for name, value in found.items():
        assert torch.equal(value, (long if name.startswith("trunk.") else cooled)[name])
        assert not name.startswith("head.") or not torch.equal(value, long[name])
    entry = read_summary(ran / "summary.json").of("both")
    assert entry is not None
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert entry.extra["begun_with"]["parts"] == {
        "trunk": {"experiment": "long", "sha256": hashes["long"]},
        "head": {"experiment": "cooled", "sha256": hashes["cooled"]},
    }


def test_each_of_several_runs_whose_weights_are_taken_is_checked(make: Make) -> None:
    wide = make("cooled", objective=NextPatch(head=TransformerHead(width=16, depth=1, num_heads=2)))
    expected = problems(make("long"), wide, make("both", initial_weights=PARTS))
    assert expected.keys() == {"both.initial_weights.1"}
    assert "what experiment 'cooled' ends with (part 'head') does not fit" in expected["both.initial_weights.1"]
    assert problems(make("long"), make("both", initial_weights=PARTS)).keys() == {"both.initial_weights.1.experiment"}
    check_study(study(make("long"), make("cooled"), make("both", initial_weights=PARTS)), with_data=False)


def test_a_head_of_its_own_is_no_matter_where_the_trunk_alone_is_taken(make: Make) -> None:
    other = NextPatch(head=LinearHead(), prefix="uniform")
    tuned = make("tuned", objective=other, initial_weights=Weights(experiment="long"))
    check_study(study(make("long"), tuned), with_data=False)
