"""A study runs its experiments one after another and records each."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger

from aimcore import Engine, InvalidValue, Study, recipe
from aimcore.contracts.errors import RunFailed, RunFolderError
from aimcore.io.run_folder import RunFolder
from aimcore.report import read_summary
from aimcore.running.experiment_run import run_experiment
from aimcore.running.preflight import Check
from aimcore.running.recorded_recipes import difference_from_recorded
from aimcore.running.study_run import check_folder, default_folder, run_study
from aimcore_objectives import Classification
from aimcore_optimizers import AdamW
from aimcore_probes import KNNProbe

pytestmark = pytest.mark.usefixtures("training")


def raising(error: BaseException) -> Any:
    def behave() -> None:
        raise error

    return behave


def statuses(out: Path) -> dict[str, str]:
    return {entry.name: entry.status for entry in read_summary(out / "summary.json").experiments}


def test_every_experiment_is_in_the_summary_with_what_was_measured(make_study: Any, tmp_path: Path) -> None:
    run_study(attrs.evolve(make_study("one", "two"), source="Table 9"), tmp_path / "out", scale="smoke")
    summary = read_summary(tmp_path / "out" / "summary.json")
    one = summary.experiments[0]
    assert (summary.study, summary.source, summary.scale) == ("table", "Table 9", "smoke")
    assert (one.num_steps, one.patches_per_second, one.seconds, one.paper) == (2, 100.0, 1.0, {"linear": 0.5})


@pytest.fixture
def leaving_out(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"broken links": 3, "files of other kinds (.txt)": 1200}
    monkeypatch.setattr("aimcore_sources.arrays.OpenArrays.left_out", counts, raising=False)
    return counts


def test_what_sources_leave_out_is_logged_once_and_kept_in_the_summary(
    make_study: Any, tmp_path: Path, leaving_out: dict[str, int]
) -> None:
    said: list[str] = []
    handler = logger.add(said.append, format="{message}", level="WARNING")  # type: ignore[arg-type]
    logger.enable("aimcore")
    try:
        run_study(make_study("one", "two"), tmp_path, scale=None)
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    counted = "1,200 files of other kinds (.txt), 3 broken links"
    assert said == [f"data.{field} leaves out {counted}\n" for field in ("train", "validation")]
    found = read_summary(tmp_path / "summary.json").experiments
    assert [one.left_out for one in found] == [{"train": leaving_out, "validation": leaving_out}] * 2


def test_a_run_from_python_says_what_is_left_out_too(
    make_experiment: Any, tmp_path: Path, leaving_out: dict[str, int]
) -> None:
    found = run_experiment(make_experiment("one"), tmp_path).left_out
    assert found == {"train": leaving_out, "validation": leaving_out}


def test_a_source_that_leaves_nothing_out_leaves_no_trace(make_study: Any, tmp_path: Path) -> None:
    (one,) = run_study(make_study("one"), tmp_path, scale=None).experiments
    assert one.left_out is None
    assert "left_out" not in (tmp_path / "summary.json").read_text()


def test_the_summary_holds_both_losses_and_sixteen_chunks(make_study: Any, tmp_path: Path) -> None:
    (one,) = run_study(make_study("one"), tmp_path, scale="smoke").experiments
    loss = (one.losses or {})["next_patch"]
    chunks = one.validation_loss_by_chunk or ()
    assert loss.train_last_100 == 0.5
    # Four patches fall into chunks with edges round(i * 4 / 16), halves to even; the first patch is never predicted.
    assert [index for index, value in enumerate(chunks) if value is not None] == [5, 10, 13]
    assert loss.validation == pytest.approx(sum(value for value in chunks if value is not None) / 3)


def test_the_recipe_next_to_the_numbers_repeats_the_experiment(make_study: Any, tmp_path: Path) -> None:
    study = make_study("one")
    (one,) = run_study(study, tmp_path, scale="smoke").experiments
    assert one.recipe == "one/recipe.json"
    assert recipe.load(tmp_path / one.recipe) == study.experiments[0]


def test_a_failure_is_recorded_and_the_others_go_on(make_study: Any, training: Any, tmp_path: Path) -> None:
    training.behaviours["one"] = raising(RuntimeError("no such luck"))
    with pytest.warns(RunFailed, match="^one failed: RuntimeError: no such luck; see .*one/error.txt$"):
        summary = run_study(make_study("one", "two"), tmp_path, scale="smoke")
    assert statuses(tmp_path) == {"one": "failed", "two": "finished"}
    assert summary.experiments[0].extra == {"error": "RuntimeError: no such luck"}
    assert "raise error" in (tmp_path / "one" / "error.txt").read_text()


def test_metrics_that_were_lost_are_recorded(make_study: Any, training: Any, tmp_path: Path) -> None:
    training.missing_metrics = "4 to 8"
    run_study(make_study("one"), tmp_path, scale="smoke")
    (one,) = read_summary(tmp_path / "summary.json").experiments
    assert one.extra["missing_metrics"] == "4 to 8"


def test_what_was_measured_before_a_failure_is_kept(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimcore.running.experiment_run.validate", lambda *_, **__: raising(OSError("gone"))())
    with pytest.warns(RunFailed, match="OSError: gone"):
        (one,) = run_study(make_study("one"), tmp_path, scale="smoke").experiments
    assert (one.status, one.num_steps) == ("failed", 2)
    assert (one.losses or {})["next_patch"].train_last_100 == 0.5


def test_a_failure_after_training_says_how_to_probe_by_others(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no held-out images")

    monkeypatch.setattr("aimcore.running.experiment_run.probe_experiment", broken)
    study = make_study("one")
    study = attrs.evolve(study, experiments=[attrs.evolve(study.experiments[0], probes=(KNNProbe(),))])
    said: list[str] = []
    handler = logger.add(said.append, format="{message}", level="ERROR")  # type: ignore[arg-type]
    logger.enable("aimcore")
    try:
        with pytest.warns(RunFailed, match="no held-out images"):
            run_study(study, tmp_path / "out", scale="smoke")
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    assert f"aimcore probe {tmp_path / 'out' / 'one'} --set probes=..." in said[-1]


@pytest.mark.parametrize("way", ["while training", "outside training"])
def test_an_interruption_is_recorded_and_ends_the_study(
    way: str, make_study: Any, training: Any, tmp_path: Path
) -> None:
    if way == "while training":
        training.statuses["one"] = "interrupted"
    else:
        training.behaviours["one"] = raising(KeyboardInterrupt())
    run_study(make_study("one", "two"), tmp_path, scale="smoke")
    assert statuses(tmp_path) == {"one": "interrupted"}
    assert [name for name, _ in training.calls] == ["one"]


def test_resuming_skips_what_is_finished_and_goes_on_with_the_rest(
    make_study: Any, training: Any, tmp_path: Path
) -> None:
    training.statuses["two"] = "interrupted"
    run_study(make_study("one", "two", "three"), tmp_path, scale="smoke")
    training.statuses.clear()
    run_study(make_study("one", "two", "three"), tmp_path, scale="smoke", resume=True)
    assert training.calls == [("one", False), ("two", False), ("two", True), ("three", True)]
    assert statuses(tmp_path) == dict.fromkeys(("one", "two", "three"), "finished")


def test_a_finished_run_whose_folder_was_deleted_runs_again(make_study: Any, training: Any, tmp_path: Path) -> None:
    run_study(make_study("one", "two"), tmp_path, scale="smoke")
    shutil.rmtree(tmp_path / "one")
    run_study(make_study("one", "two"), tmp_path, scale="smoke", resume=True)
    assert [name for name, _ in training.calls] == ["one", "two", "one"]
    assert statuses(tmp_path) == {"one": "finished", "two": "finished"}


def test_resuming_a_failure_removes_its_error(make_study: Any, training: Any, tmp_path: Path) -> None:
    training.behaviours["one"] = raising(RuntimeError("once"))
    with pytest.warns(RunFailed, match="once"):
        run_study(make_study("one"), tmp_path, scale="smoke")
    training.behaviours.clear()
    run_study(make_study("one"), tmp_path, scale="smoke", resume=True)
    assert statuses(tmp_path) == {"one": "finished"}
    assert not (tmp_path / "one" / "error.txt").exists()


def test_resuming_some_experiments_keeps_the_entries_of_the_others(make_study: Any, tmp_path: Path) -> None:
    run_study(make_study("one"), tmp_path, scale="smoke")
    run_study(make_study("two"), tmp_path, scale="smoke", resume=True)
    assert set(statuses(tmp_path)) == {"one", "two"}


def test_a_folder_with_a_run_is_refused_with_what_to_do(make_study: Any, tmp_path: Path) -> None:
    run_study(make_study("one"), tmp_path, scale="smoke")
    with pytest.raises(RunFolderError, match=r"holds a run already: continue it with --resume, or .* --out DIR"):
        run_study(make_study("one"), tmp_path, scale="smoke")


def test_another_recipe_is_not_resumed_and_the_difference_named(
    make_study: Any, make_experiment: Any, tmp_path: Path
) -> None:
    run_study(make_study("one"), tmp_path, scale="smoke")
    recipe.save(tmp_path / "one" / "recipe.json", make_experiment("one", num_steps=9, seed=1))
    with pytest.raises(RunFolderError, match=r"one differs in num_steps \(9 there, 2 here\), seed \(1 there, 0 here\)"):
        check_folder(make_study("one"), tmp_path, resume=True)


def test_a_run_from_python_is_not_resumed_by_another_recipe(make_experiment: Any, tmp_path: Path) -> None:
    run_experiment(make_experiment("one"), tmp_path)
    recorded = (tmp_path / "one" / "recipe.json").read_text()
    with pytest.raises(RunFolderError, match=r"one differs in optimizer\.peak_lr \(0\.001 there, 0\.5 here\)"):
        run_experiment(make_experiment("one", optimizer=AdamW(peak_lr=0.5)), tmp_path, resume=True)
    assert (tmp_path / "one" / "recipe.json").read_text() == recorded


def test_a_run_whose_plugin_is_missing_is_not_resumed_and_the_plugin_named(
    make_experiment: Any, tmp_path: Path
) -> None:
    run_experiment(make_experiment("one"), tmp_path)
    path = tmp_path / "one" / "recipe.json"
    written = json.loads(path.read_text())
    written["experiment"]["optimizer"] = {"name": "sophia"}
    written["plugins"]["aimcore-sophia"] = {"version": "1.2", "components": ["optimizers/sophia"]}
    path.write_text(json.dumps(written))
    found = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    expected = (
        r"one holds a run that this experiment cannot continue: .*recipe.json cannot be read .*no optimizer is called "
        r"'sophia'.*the recipe has it from aimcore-sophia 1.2, which is not installed: run pip install aimcore-sophia"
    )
    with pytest.raises(RunFolderError, match=f"(?s){expected}"):
        run_experiment(make_experiment("one"), tmp_path, resume=True)
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == found


def test_a_run_from_python_does_not_begin_where_one_is(
    make_experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "newest_checkpoint", lambda _: Path("step_00000002"))
    with pytest.raises(RunFolderError, match="one holds a run already, with a checkpoint of step 2: resume it "):
        run_experiment(make_experiment("one"), tmp_path)


def test_what_cannot_run_is_an_error_from_python_too_before_anything_is_written(
    make_experiment: Any, training: Any, tmp_path: Path
) -> None:
    one = make_experiment("one", objective=Classification(num_classes=7))
    with pytest.raises(InvalidValue, match=r"^experiment 'one':\s+data\.train: its images are of 10 classes"):
        run_experiment(one, tmp_path / "out")
    with pytest.raises(InvalidValue, match=r"^study 'table':\s+one\.data\.train: its images are of 10 classes"):
        run_study(Study(name="table", experiments=[one]), tmp_path / "out", scale=None)
    assert (training.calls, (tmp_path / "out").exists()) == ([], False)


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("place", ["validate", "probe_experiment"])
def test_a_signal_to_end_after_training_is_an_interruption_that_is_recorded(
    make_study: Any, make_experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def terminated(*_: Any, **__: Any) -> None:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            pytest.fail("SIGTERM would end this process")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(f"aimcore.running.experiment_run.{place}", terminated)
    probed = [make_experiment(name, probes=(KNNProbe(),)) for name in ("one", "two")]
    study = attrs.evolve(make_study("one", "two"), experiments=probed)
    run_study(study, tmp_path / "out", scale=None)
    assert statuses(tmp_path / "out") == {"one": "interrupted"}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_failure_is_a_warning_from_python(make_experiment: Any, training: Any, tmp_path: Path) -> None:
    training.behaviours["one"] = raising(RuntimeError("no such luck"))
    with pytest.warns(RunFailed, match="^one failed: RuntimeError: no such luck; see .*one/error.txt$") as caught:
        entry = run_experiment(make_experiment("one"), tmp_path)
    assert (entry.status, entry.extra["error"]) == ("failed", "RuntimeError: no such luck")
    assert caught[0].filename == __file__


def test_an_experiment_is_checked_once(make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    spy = Check("spy", "notes what is checked", lambda one: checked.append(one.experiment.name) or ())
    monkeypatch.setattr("aimcore.running.preflight.CHECKS", (spy,))
    run_study(make_study("one", "two"), tmp_path, scale="smoke")
    assert checked == ["one", "two"]


def test_features_that_cannot_be_kept_are_reported_before_anything_is_written(
    make_study: Any, training: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidValue, match=r"features_cache: 'bogus://x' is refused: the protocol 'bogus'"):
        run_study(make_study("one"), tmp_path / "out", scale=None, features_cache="bogus://x")
    assert (training.calls, (tmp_path / "out").exists()) == ([], False)


def test_a_file_in_place_of_the_folder_is_refused(make_study: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        check_folder(make_study("one"), tmp_path / "out", resume=True)


def test_the_default_folder_names_study_and_scale(make_study: Any) -> None:
    assert default_folder(make_study("one"), "small") == Path("runs/table-small")
    assert default_folder(make_study("one"), None) == Path("runs/table-recipe")


def test_a_run_goes_on_with_another_engine_but_not_another_precision(make_experiment: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    recipe.save(run.recipe, make_experiment("one", engine=Engine(precision="fp32")))
    other = make_experiment("one", engine=Engine(precision="fp32", zero_stage=2, num_threads=2))
    assert difference_from_recorded(other, run) is None
    rounded = make_experiment("one", engine=Engine(precision="autocast", zero_stage=2))
    found = difference_from_recorded(rounded, run)
    assert found == 'one differs in engine.precision ("fp32" there, "autocast" here)'
