"""Start-up of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import run_ranks, run_to_end

from aimcore.engine import distributed
from aimcore.engine.distributed import start, threads_per_process

TESTS = Path(__file__).parents[2]

ONE_STEP = """
from core.engine.toys import experiment, whole_batch
from aimcore.engine import TrainingEngine
with TrainingEngine(experiment(3)) as engine:
    engine.step([whole_batch(0)])
import sys
assert "torch._inductor.compile_fx" not in sys.modules, "torch's compiler takes seconds to load"
"""


def test_cores_are_shared_among_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    found = []
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("LOCAL_SIZE", "4"), ("LOCAL_WORLD_SIZE", "99")):
        with monkeypatch.context() as context:
            context.delenv("LOCAL_WORLD_SIZE", raising=False)
            context.setenv(name, value)
            found.append(threads_per_process())
    assert found == [4, 2, 1]


def test_starting_again_changes_the_threads_only() -> None:
    first, second = start(num_threads=1), start(num_threads=1)
    assert first == second
    assert torch.get_num_threads() == 1


def test_the_group_of_a_lone_process_is_bound_to_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise NCCL guesses the device, and warns at every barrier.
    made: list[tuple[str, Any]] = []
    gpu = torch.device("cuda", 0)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(distributed, "_device", lambda: gpu)
    monkeypatch.setattr(distributed, "load_deepspeed", lambda: SimpleNamespace(init_distributed=lambda *_, **__: None))
    monkeypatch.setattr(distributed.atexit, "register", lambda _: None)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **given: made.append((backend, given["device_id"])))
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    assert start(1).device == gpu
    assert made == [("nccl", gpu)]


def test_a_lone_process_trains_quietly_without_launcher_compiler_or_ninja(tmp_path: Path) -> None:
    # Neither ninja nor g++ can be found, and nothing says which rank this is.
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = run_to_end([sys.executable, "-c", ONE_STEP], env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


LEAVING = """
import atexit, os

def threads_of_gloo():
    names = [open(f"/proc/self/task/{thread}/comm").read() for thread in os.listdir("/proc/self/task")]
    return sum("gloo" in name for name in names)

# Registered before the engine's, and so run after it.
atexit.register(lambda: print(threads_of_gloo()))
from core.engine.toys import experiment, whole_batch
from aimcore.engine import TrainingEngine

def trained(stage):
    with TrainingEngine(experiment(stage)) as engine:
        for step in range(2):
            engine.step([whole_batch(step)])

for stage in (0, 3):
    trained(stage)
print(threads_of_gloo() > 0)
"""


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return run_to_end([sys.executable, "-c", code], env=environment)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names under Linux")
def test_no_thread_of_the_process_group_outlives_python() -> None:
    done = run_alone(LEAVING)
    assert done.stdout.split() == ["True", "0"], done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names under Linux")
def test_after_an_error_nobody_is_waited_for() -> None:
    done = run_alone(LEAVING + "\nraise ValueError('on purpose')")
    assert int(done.stdout.split()[-1]) > 0
    assert "on purpose" in done.stderr


def test_processes_wait_for_one_that_works_alone_longer_than_collectives_may_take() -> None:
    first, second = run_ranks(2, "core.engine.slow_process")
    assert first.stdout.splitlines()[:1] == ["first other fast slow value [0, 1]"], first.stderr[-2000:]
    assert second.stdout.splitlines()[:1] == ["first every fast slow value [0, 1]"], second.stderr[-2000:]
    assert first.stdout.splitlines()[1:] == ["timed out"]  # what torch's own collective does after this time
