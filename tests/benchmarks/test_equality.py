"""``benchmarks/equality.py``: few of its cells, which cover pairs of settings, and the faults that it must find.

The whole table: ``python benchmarks/equality.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
from core.engine.toys import experiment
from processes import launched_env, run_to_end

from aimcore.data import train_steps
from aimcore.engine import read_metrics, train, training_engine
from aimcore_optimizers import AdamW

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def equality() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import equality

        yield equality
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_cells_that_cover_pairs_of_settings_equal_the_plain_loop(equality: Any, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, BENCHMARKS / "equality.py", "--covering", "--processes", "1", "--processes", "2"]
    done = run_to_end([*command, "--json", out], env=launched_env(), fork=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    trained = [row for row in rows if not row["refused"]]
    assert {row["variant"] for row in trained} == set(equality.variants())
    assert {(row["stage"], row["precision"]) for row in trained} == {
        (stage, precision)
        for stage in range(4)
        for precision in ("fp32", "autocast", "bf16")
        if (stage, precision) != (0, "bf16")
    }
    assert {(row["stage"], row["processes"]) for row in trained} == {(n, m) for n in range(4) for m in (1, 2)}
    assert len({row["refused"] for row in rows if row["refused"]}) == 3


ALLOWED = [pair for pair in product(range(4), ("fp32", "autocast", "bf16")) if pair != (0, "bf16")]


@pytest.mark.parametrize(("stage", "precision"), ALLOWED)
def test_metrics_have_the_gradient_norm_of_the_plain_loop(
    stage: int, precision: str, equality: Any, tmp_path: Path
) -> None:
    run = experiment(stage, precision, num_steps=2, optimizer=AdamW(gradient_clipping=0.1))
    train(run, tmp_path, progress=False).engine.close()
    steps = train_steps(run.data, run.data.train.open(), patch_size=4, seed=run.seed, num_steps=2)
    expected = equality.train_plainly(run, list(steps), {}).norms
    norms = [line["gradient_norm"] for line in read_metrics(tmp_path)]
    assert norms == pytest.approx(expected, rel=1e-5)
    assert min(norms) > 0.1


FAULTS = {
    "rounded masters": (("aim", "plain", "bf16", 1, 1), training_engine, "give_masters", lambda *_: None),
    "two roundings": (("aimv2", "plain", "bf16", 3, 1), training_engine, "round_once", lambda _: None),
    "no average": (("aim", "average", "fp32", 2, 1), training_engine, "call_after_step", lambda *_: None),
    "one rate": (("aim", "layer decay", "fp32", 1, 1), AdamW, "layer_decay", 1.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_exceeds_the_tolerances(fault: str, equality: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, owner, name, value = FAULTS[fault]
    cell = equality.Cell(*levels)
    expected = equality.plain(cell)
    if owner is AdamW:
        run = equality.experiment_of(cell)
        changed = attrs.evolve(run, optimizer=attrs.evolve(run.optimizer, **{name: value}))
        monkeypatch.setattr(equality, "experiment_of", lambda _: changed)
    else:
        monkeypatch.setattr(owner, name, value)
    assert equality.compared(cell, expected, 0).share > 1


FAILING = """
import equality

def compared(cell, expected, rank):
    if cell.stage == 1 and rank == 1:
        raise ValueError("no such luck")
    return equality.Result(cell, 0.0, 0.0, 0.0, "here")

equality.compared = compared
cells = [equality.Cell("aim", "plain", "fp32", stage, 2) for stage in range(3)]
for result in equality.run_processes(cells, {equality.key_of(cell): None for cell in cells}):
    print(result.cell.stage, result.share, result.error)
"""


def test_after_a_cell_that_fails_the_others_are_compared() -> None:
    env = launched_env()
    env["PYTHONPATH"] = f"{BENCHMARKS}:{env['PYTHONPATH']}"
    done = run_to_end([sys.executable, "-c", FAILING], env=env, fork=True)
    lines = ["0 0.0 ", "1 inf process 1: ValueError: no such luck", "2 0.0 "]
    assert done.stdout.splitlines() == lines, done.stderr[-2000:]


def test_settings_must_be_refused_for_the_expected_reason(equality: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, allowed = (equality.Cell("aim", "plain", "bf16", stage, 1) for stage in (0, 1))
    assert equality.refusal(refused).share == 0
    assert equality.refusal(allowed) is None
    monkeypatch.setattr(equality, "expected_refusal", lambda cell: "too dear" if cell.stage else "")
    assert equality.refusal(refused).error.startswith("refused unexpectedly: Engine: precision: bf16 at ZeRO stage 0")
    assert equality.refusal(allowed).error == "not refused, although 'too dear' is expected"


def test_a_difference_or_an_error_is_marked_and_gives_exit_status_1(
    equality: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [equality.Cell("aim", "plain", "fp32", stage, 1) for stage in range(3)]
    same = equality.Result(cells[0], 1e-7, 0.0, 0.0, "here")
    other = equality.Result(cells[1], 0.0, 2e-5, 0.0, "here")
    statuses = []
    for some in ([same], [same, other], [same, equality.failed(cells[2], "boom")], []):
        monkeypatch.setattr(equality, "results_of", lambda _, some=some: some)
        statuses.append(equality.main(["--only", "plain"]))
    assert statuses == [0, 1, 1, 1]
    printed = capsys.readouterr().out
    assert "1e-07   2e-05!" in printed
    assert "error!" in printed
    assert '"error": "boom"' in printed
