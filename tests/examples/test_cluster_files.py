"""The files for clusters that docs/scaling.md explains."""

from __future__ import annotations

from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_the_batch_script_sets_every_variable_that_a_process_reads(name: str) -> None:
    script = (CLUSTER / "train.sbatch").read_text(encoding="utf-8")
    assert any(f"{before}{name}=" in script for before in (" ", "'", "\n"))


def test_the_batch_script_trains_an_experiment_that_the_study_has() -> None:
    script = (CLUSTER / "train.sbatch").read_text(encoding="utf-8")
    study, *words = script.partition("STUDY=(")[2].partition(")")[0].split()
    assert (CLUSTER.parents[1] / study).is_file()
    assert words == ["--scale", "paper", "--only", "7B-1250000"]
    assert '"7B"' in (CLUSTER.parents[1] / study).read_text(encoding="utf-8")
