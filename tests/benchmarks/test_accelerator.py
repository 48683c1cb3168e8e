"""The table of ``benchmarks/accelerator.py`` on the CPU, in tiny sizes; and what makes it wrong.

On a machine with a GPU: ``python benchmarks/accelerator.py``.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def accelerator():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import accelerator

        yield accelerator
    finally:
        sys.path.remove(str(BENCHMARKS))


def run(accelerator, groups, *more):
    only = [argument for group in groups for argument in ("--only", group)]
    return accelerator.main(["--device", "cpu", "--quick", *only, *more])


def test_a_cpu_is_right_and_the_rows_are_written(accelerator, tmp_path):
    groups = ("collectives", "attention", "probes", "checkpoints", "steps")
    assert run(accelerator, groups, "--json", str(tmp_path / "rows.json")) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["group"] for row in rows} == set(groups)
    assert all(row["is_right"] for row in rows)
    utilised = [row["utilisation"] for row in rows if "utilisation" in row]
    assert len(utilised) == 3
    assert all(0 < share < 1 for share in utilised)


def test_attention_that_ignores_its_mask_is_wrong(accelerator, monkeypatch, capsys):
    import accelerator_numbers

    def bidirectional(query, key, value, _mask):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    monkeypatch.setattr(accelerator_numbers, "attend", bidirectional)
    assert run(accelerator, ["attention"]) == 1
    assert "2 of 12 are right" in capsys.readouterr().out  # without a mask, in float32 and bfloat16


def test_an_error_is_a_wrong_row_and_the_others_are_measured(accelerator, monkeypatch, capsys):
    import accelerator_numbers

    def failing(objective, *_):
        if objective.name == "cappa":
            raise RuntimeError("out of memory")
        return accelerator_numbers.at_most(0.0, 1e-4)

    monkeypatch.setattr(accelerator_numbers, "_stages", failing)
    assert run(accelerator, ["stages"]) == 1
    *_, wrong = capsys.readouterr().out.partition("are right\n")
    assert wrong.splitlines() == [
        "WRONG: stages: cappa 1, fp32, stages 0-1",
        "WRONG: stages: cappa 1, bf16, stages 1-1",
        "WRONG: stages: cappa 1, autocast, stages 0-1",
    ]


@pytest.mark.usefixtures("accelerator")
def test_what_is_not_a_number_is_wrong():
    import accelerator_rows

    nan = torch.tensor([1.0, torch.nan])
    assert not accelerator_rows.at_most(accelerator_rows.relative_difference(nan, torch.ones(2)), 1.0).is_right
    assert not accelerator_rows.at_most(accelerator_rows.worst([0.0, float("nan"), 0.0]), 1.0).is_right


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without a GPU")
def test_without_a_gpu_nothing_is_started(accelerator, capsys):
    assert accelerator.main([]) == 2
    assert "no NVIDIA GPU is visible" in capsys.readouterr().err
