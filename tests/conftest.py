import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch loads OpenMP: spinning threads of one process starve those of another (see aimcore/run.py).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The tests run in several processes (pytest -n): each has one thread, so that they do not take cores from another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

_FROZEN = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Collect without the garbage collector: a collection leaves little garbage, and so many objects to go through."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take what stays for good out of the garbage collector's sight: the collected tests, and deepspeed once loaded.

    DeepSpeed runs a full collection for every engine of stage 3, which takes 0.2 s with them and none without.
    """
    frozen = item.config.stash.setdefault(_FROZEN, set())
    for large in ("pytest", "deepspeed"):
        if large in sys.modules and large not in frozen:
            frozen.add(large)
            gc.collect()
            gc.freeze()


def pytest_sessionfinish() -> None:
    """End the fork server: only here is it known that no test needs it any more."""
    if "processes" in sys.modules:
        sys.modules["processes"].end_server()


@pytest.fixture
def ordinary_signals() -> Iterator[None]:
    """For tests that send signals: pytest itself may have been started with some of them ignored."""
    from processes import ordinary_signals

    with ordinary_signals():
        yield


@pytest.fixture(autouse=True)
def memory_is_forgotten() -> Iterator[None]:
    """fsspec keeps what is written to ``memory://`` for the whole process: another test must not find it."""
    yield
    if memory := sys.modules.get("fsspec.implementations.memory"):
        memory.MemoryFileSystem.store.clear()
        memory.MemoryFileSystem.pseudo_dirs[:] = [""]
