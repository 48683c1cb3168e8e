"""The command line."""

import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from loguru import logger
from processes import run_to_end

import aimcore
from aimcore import AimcoreError, Study, run
from aimcore.report import ExperimentSummary, Summary
from aimcore.testing import Case
from aimcore.testing.causality import CausalityResult, Doubt

STUDY = """
from aimcore import Data, Experiment, Study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    source = BundledFashionMNIST()
    experiments = [Experiment(
        name=name,
        data=Data(train=source, validation=source, batch_size=4, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=14),
        objective=NextPatch(head=LinearHead(), prefix=None),
        num_steps=2,
    ) for name in ("one", "two")]
    return Study(name="table", source="a paper's table", experiments=experiments)
"""


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Any:
    """Commands add log sinks: take them away again."""
    yield
    logger.remove()
    logger.disable("aimcore")


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.py").write_text(STUDY)
    return "table.py"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``run_study`` was asked for; it gives the statuses that ``set_statuses`` says."""
    calls: list[dict[str, Any]] = []

    def run_study(study: Study, out: Path, *, scale: str | None, resume: bool, features_cache: str | None) -> Summary:
        calls.append({"study": study, "out": out, "scale": scale, "resume": resume, "features_cache": features_cache})
        entries = tuple(
            ExperimentSummary(name=one.name, status=STATUSES[one.num_steps], seed=0, recipe="recipe.json")
            for one in study.experiments
        )
        return Summary(study=study.name, scale=scale, machine={}, experiments=entries)

    monkeypatch.setattr("aimcore.running.study_run.run_study", run_study)
    return calls


STATUSES = {2: "finished", 3: "failed", 4: "interrupted"}
"""Status that the stand-in gives an experiment, by its number of steps."""


def test_a_study_runs_small_in_its_default_folder(study_file: str, runs: list[dict[str, Any]]) -> None:
    assert run.main([study_file]) == 0
    (call,) = runs
    assert (call["out"], call["scale"], call["resume"]) == (Path("runs/table-small"), "small", False)


def test_options_reach_the_study(study_file: str, runs: list[dict[str, Any]], tmp_path: Path) -> None:
    options = ["--scale", "smoke", "--only", "two", "--out", str(tmp_path / "out"), "--resume", "--set", "seed=5"]
    assert run.main([study_file, *options]) == 0
    (call,) = runs
    assert (call["out"], call["scale"], call["resume"]) == (tmp_path / "out", "smoke", True)
    assert [(one.name, one.seed) for one in call["study"].experiments] == [("two", 5)]
    assert run.main([study_file, "--out", str(tmp_path / "other"), "--features-cache", "memory://kept"]) == 0
    assert [call["features_cache"] for call in runs] == [None, "memory://kept"]


def test_seeds_repeat_the_experiments_that_only_selects(study_file: str, runs: list[dict[str, Any]]) -> None:
    assert run.main([study_file, "--seeds", "2", "--only", "two", "--set", "log_every=5"]) == 0
    names = [(one.name, one.seed, one.log_every) for one in runs[0]["study"].experiments]
    assert names == [("two-seed-0", 0, 5), ("two-seed-1", 1, 5)]
    assert [one.name for one in runs[0]["study"].left_out] == ["one-seed-0", "one-seed-1"]


def test_no_seeds_are_refused(study_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([study_file, "--seeds", "0"]) == 2
    assert "num_seeds: must be at least 1, got 0" in capsys.readouterr().err


def test_the_console_script_runs_studies_as_the_module_does(study_file: str, runs: list[dict[str, Any]]) -> None:
    assert run.command(["run", study_file, "--scale", "smoke"]) == 0
    assert runs[0]["scale"] == "smoke"


@pytest.mark.parametrize(("num_steps", "status"), [(3, 1), (4, 130)])
@pytest.mark.usefixtures("runs")
def test_failures_and_interruptions_have_their_exit_status(study_file: str, num_steps: int, status: int) -> None:
    assert run.main([study_file, "--set", f"num_steps={num_steps}"]) == status


def test_what_the_system_refuses_before_anything_runs_is_an_error_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run.command(["caption", "n" * 256, "picture.png"]) == 2
    assert capsys.readouterr().err == f"error: [Errno 36] File name too long: '{'n' * 256}/recipe.json'\n"


@pytest.mark.usefixtures("runs")
def test_results_that_cannot_be_printed_do_not_change_the_exit_status(
    study_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Mock(wraps=sys.stdout, **{"write.side_effect": OSError(28, "No space left on device")})
    monkeypatch.setattr(sys, "stdout", full)
    assert run.main([study_file]) == 0
    assert sys.stdout is not full  # which would fail once more when Python ends
    assert "the table of results cannot be printed: [Errno 28] No space left on device" in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("num_steps", "continues"), [(2, False), (3, True), (4, True)])
def test_a_run_that_did_not_finish_ends_with_the_command_that_continues_it(
    study_file: str, num_steps: int, continues: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [study_file, "--only", "one", "--seeds", "1", "--out", "my runs", "--set", f"num_steps={num_steps}"]
    run.main(given)
    command = (
        f"to continue: python -m aimcore.run {study_file} --seeds 1 --only one --out 'my runs' "
        f"--set num_steps={num_steps}"
    )
    assert (f"{command} --resume\n" in capsys.readouterr().err) is continues


def test_a_folder_that_holds_a_run_is_refused_with_the_command_that_continues_it(
    study_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "one").mkdir(parents=True)
    assert run.main([study_file, "--out", "out", "--only", "one", "--set", "seed=3"]) == 2
    assert capsys.readouterr().err.endswith(
        f"this continues it: python -m aimcore.run {study_file} --only one --out out --set seed=3 --resume\n"
    )


def test_errors_are_reported_without_a_traceback(study_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([study_file, "--only", "three"]) == 2
    output = capsys.readouterr().err
    assert output == "error: no experiment of 'table' is called 'three'; there are one, two\n"


def test_what_a_study_file_raises_ends_with_status_2_and_a_traceback_on_request(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(study_file).write_text("def study(scale):\n    return {}[scale]\n")
    assert run.main([study_file]) == 2
    assert capsys.readouterr().err == (
        "error: table.py, line 2: KeyError: 'small', a scale: if the study does not define it, choose another with "
        "--scale (the whole traceback: set AIMCORE_TRACEBACK=1)\n"
    )
    monkeypatch.setenv("AIMCORE_TRACEBACK", "1")
    assert run.main([study_file]) == 2
    output = capsys.readouterr().err
    assert "return {}[scale]" in output
    assert "Traceback (most recent call last)" in output


def test_the_place_of_a_refused_value_is_printed_below_it(study_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(study_file).write_text("from aimcore_optimizers import AdamW\nAdamW(peak_lr=0)\n")
    assert run.main([study_file]) == 2
    output = capsys.readouterr().err
    assert output.startswith("error: AdamW: peak_lr: ")
    assert output.endswith("\n  in table.py, line 2\n")


@pytest.mark.parametrize("name", ["\x1b[31mred\x07.py", "a\rb.py"])
def test_control_characters_in_errors_do_not_reach_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([name]) == 2
    assert set(capsys.readouterr().err.removesuffix("\n")) & set("\x1b\x07\r\n") == set()


def test_control_characters_in_the_log_do_not_reach_the_terminal(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(_: object) -> int:
        logger.info("{}: begun", "\x1b[31mname\x07")
        return 0

    monkeypatch.setattr("aimcore.run.run", tell)
    assert run.main([study_file]) == 0
    assert r" \x1b[31mname\x07: begun" in capsys.readouterr().err


def test_a_taken_folder_is_reported_before_the_checks_that_take_time(
    study_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimcore.running.study_run.check_study", lambda *_, **__: pytest.fail("checked too early"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    assert run.main([study_file, "--out", str(tmp_path / "out")]) == 2
    assert "holds a run already: continue it with --resume" in capsys.readouterr().err


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    study_file: str, runs: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([study_file, "--dry-run", "--set", 'data.train={"name": "image_folder", "url": "/no"}']) == 0
    output = capsys.readouterr().out
    assert "one, two" in output
    assert "FLOPs per run" in output
    assert "a run logs what its sources leave out" in " ".join(output.split())
    assert not runs
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["table.py"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--set", 'initial_weights={"url": "/nowhere.safetensors"}'],
            "one.initial_weights: initial weights: cannot read /nowhere",
        ),
        (["--set", 'initial_weights={"url": "reference://x::data:,{}"}'], "url: 'reference://x::data:,{}' is refused"),
        (["--set", 'data.train={"name": "image_folder", "url": "zip://a::reference://x"}'], "url: 'zip://a::reference"),
        (["--set", 'trackers=[{"name": "jsonl", "url": "reference://x"}]'], "url: 'reference://x' is refused"),
        (["--features-cache", "reference://x::memory://y"], "features_cache: 'reference://x::memory://y' is refused"),
        (
            ["--features-cache", "bogus://x"],
            "features_cache: 'bogus://x' is refused: the protocol 'bogus'",
        ),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    options: list[str], message: str, study_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main([study_file, "--dry-run", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_has_no_scale(study_file: str, runs: list[dict[str, Any]], tmp_path: Path) -> None:
    from aimcore import recipe
    from aimcore.running.study_files import load_study

    recipe.save(tmp_path / "recipe.json", load_study(Path(study_file), "small").experiments[0])
    assert run.main(["recipe.json"]) == 0
    assert (runs[0]["out"], runs[0]["scale"]) == (Path("runs/one-recipe"), None)


def test_plugins_are_listed_with_what_they_supply(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["plugins"]) == 0
    output = capsys.readouterr().out
    assert "orderings/spiral" in output
    assert f"aimcore {version('aimcore')}" in output


def test_a_blocked_plugin_is_listed_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIMCORE_BLOCK", "probes")
    assert run.command(["plugins"]) == 0
    output = capsys.readouterr().out
    assert "blocked by AIMCORE_BLOCK: plugin 'probes' of aimcore" in output
    assert "probes/linear" not in output


def test_a_role_is_described_by_its_components(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["describe", "orderings"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("raster", "spiral", "checkerboard", "fixed_random"))


def test_a_component_is_described_by_its_fields_its_paper_and_its_supplier(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["describe", "heads/mlp"]) == 0
    output = capsys.readouterr().out
    assert "depth: int = 12" in output
    assert "no biases" in output
    assert "arXiv:2401.08541" in output
    assert "plugin 'heads' of aimcore" in output


@pytest.mark.parametrize(
    ("what", "message"),
    [("pattern", "no role is called 'pattern'"), ("orderings/sprial", "did you mean 'spiral'")],
)
def test_an_unknown_thing_to_describe_names_what_there_is(
    what: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.command(["describe", what]) == 2
    assert message in capsys.readouterr().err


def test_an_interrupted_check_says_how_far_it_came(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aimcore.testing.runner.verdict_of", interrupted)
    assert run.command(["check", "causality", study_file]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "checking 2 experiments", "interrupted: 0 of 2 experiments checked",
    ]  # fmt: skip


def test_causality_is_checked_over_a_study(study_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.command(["check", "causality", study_file]) == 0
    assert capsys.readouterr().out == "one: causal\ntwo: causal\n2 experiments: 2 causal, none leaking\n"


def test_a_leak_is_reported_with_exit_status_1(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aimcore.testing.runner.causality_of", lambda case: CausalityResult(["a leak"] * (case.name == "two"), [])
    )
    assert run.command(["check", "causality", study_file]) == 1
    out = capsys.readouterr().out
    assert out == "one: causal\ntwo: LEAKS\n  a leak\n2 experiments: 1 causal, 1 leaking\n"


@pytest.mark.parametrize(("is_fault", "status"), [(False, 0), (True, 1)])
def test_what_cannot_be_judged_is_neither_causal_nor_a_leak(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_fault: bool, status: int
) -> None:
    def judged(case: Case) -> CausalityResult:
        return CausalityResult([], [Doubt("nobody knows", is_fault)] * (case.name == "two"))

    monkeypatch.setattr("aimcore.testing.runner.causality_of", judged)
    assert run.command(["check", "causality", study_file]) == status
    out = capsys.readouterr().out
    assert out == "one: causal\ntwo: NOT JUDGED\n  nobody knows\n2 experiments: 1 causal, none leaking, 1 not judged\n"


def test_an_experiment_that_cannot_be_checked_is_reported_and_does_not_end_the_others(
    study_file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_on_the_first(case: Case) -> CausalityResult:
        if case.name == "one":
            raise RuntimeError("no such weight")
        return CausalityResult([], [])

    monkeypatch.setattr("aimcore.testing.runner.causality_of", fails_on_the_first)
    assert run.command(["check", "causality", study_file]) == 1
    assert capsys.readouterr().out == (
        "one: CANNOT BE CHECKED\n  raised RuntimeError: no such weight\ntwo: causal\n"
        "2 experiments: 1 causal, none leaking, 1 could not be checked\n"
    )


@pytest.mark.parametrize("entry", [run.main, run.command])
def test_the_version_is_printed(entry: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aimcore {version('aimcore')}\n"
    assert aimcore.__version__ == version("aimcore")


def test_help_and_the_version_load_neither_torch_nor_deepspeed() -> None:
    code = """
import sys
from aimcore import run
for option in ("--help", "--version"):
    try:
        run.main([option])
    except SystemExit:
        assert not {"torch", "deepspeed"} & set(sys.modules), option
"""
    done = run_to_end([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
    assert f"aimcore {version('aimcore')}" in done.stdout


@pytest.mark.parametrize(("rank", "expected"), [("0", ["INFO", "ERROR"]), ("1", ["ERROR"])])
def test_the_first_process_logs_everything_and_the_others_errors(
    rank: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study_file: str
) -> None:
    monkeypatch.setenv("RANK", rank)

    def speak(*_: Any, **__: Any) -> Any:
        from aimcore.cli.run import logger as log

        log.info("said")
        log.error("said")
        raise AimcoreError("enough")

    monkeypatch.setattr("aimcore.running.study_files.load_study", speak)
    assert run.main([study_file]) == 2
    output = [line for line in capsys.readouterr().err.splitlines() if line.endswith("said")]
    assert [next(level for level in ("INFO", "ERROR") if level in line) for line in output] == expected


def test_warnings_of_old_names_reach_who_runs_a_study(tmp_path: Path) -> None:
    """Python hides deprecations of modules that are not ``__main__``."""
    study = tmp_path / "old.py"
    study.write_text("from aimcore.values import Batch\nprint(Batch.__name__)\nraise ValueError('enough')\n")
    done = run_to_end([sys.executable, "-m", "aimcore.run", str(study), "--dry-run"])
    assert "DeprecationWarning: aimcore.values has moved" in done.stderr
    assert "from aimcore import Batch" in done.stderr


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_terminated_ends_in_order(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def terminated(_: object) -> int:
        assert signal.getsignal(number) is not signal.SIG_DFL  # which would end pytest
        try:
            signal.raise_signal(number)
            time.sleep(0)  # a chance to run the handler
        finally:
            cleaned.append(True)
        return 0

    monkeypatch.setattr(run, "_report", terminated)
    assert run.command(["report", "runs"]) == 130
    assert cleaned
    assert signal.getsignal(number) is signal.SIG_DFL
