"""State of an objective that changes in training, such as an average of weights, under different engine settings."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from aimcore.contracts.assembly import assembled
from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.engine import TrainingEngine
from aimcore.engine.distributed import join
from aimcore.testing.fixtures import as_float32, batch_for, part_of, random_images
from aimcore.testing.requirements import FAULTS, seeded
from aimcore.testing.short_training import settings
from aimcore.testing.small_parts import StandInOptimizer, StandInTrunk

State = dict[str, Tensor]
NUM_STEPS = 2
_NUM_IMAGES = 4
_MOST_SECONDS = 300
_SMOOTH = StandInOptimizer(peak_lr=1e-2, eps=1e-2)
"""Adam with a large epsilon, so that near-zero gradients, whose signs are noise, change no weights."""


def module_of(objective: Objective) -> ObjectiveModule:
    """Build the objective on the stand-in trunk, always with the same weights, in training mode."""
    with seeded():
        return assembled(StandInTrunk(), objective).train()


def batch_of_step(objective: Objective, step: int) -> Batch:
    """Return four images of a step, in float32."""
    return as_float32(batch_for(objective, random_images(number=_NUM_IMAGES, seed=step), seed=step))


def state_of(module: nn.Module) -> State:
    """Copy the state of a module other than trained weights: its buffers and frozen parameters."""
    frozen = [(name, weight) for name, weight in module.named_parameters() if not weight.requires_grad]
    return {name: value.detach().clone() for name, value in [*module.named_buffers(), *frozen]}


def has_state(objective: Objective) -> bool:
    """Whether ``objective`` changes state other than trained weights, in a few steps without an engine."""
    module = module_of(objective)
    before = state_of(module)
    if type(module).after_step is ObjectiveModule.after_step and not before:
        return False
    for step in range(2):
        _pretend_to_train(objective, module, step)
    return any(not torch.equal(value, before[name]) for name, value in state_of(module).items())


def unsaved_state_of(objective: Objective) -> list[str]:
    """Return names of attributes and buffers that change in training and are in no checkpoint.

    Values that only the first step sets, such as a cache, do not count.
    """
    module = module_of(objective)
    found = []
    for step in range(3):
        _pretend_to_train(objective, module, step)
        found.append(dict(_unsaved(module)))
    first, *later = found
    return [name for name in first if any(name in each and not _equal(first[name], each[name]) for each in later)]


def _pretend_to_train(objective: Objective, module: ObjectiveModule, step: int) -> None:
    """Run a forward, change the weights, and call ``after_step``."""
    with seeded(), torch.no_grad():
        module(batch_of_step(objective, step))
        for weight in module.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.1)
        module.after_step(step + 1, NUM_STEPS)


def _unsaved(module: nn.Module) -> Iterator[tuple[str, list[Any]]]:
    names, torchs_own = set(module.state_dict()), set(vars(nn.Module()))
    saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        own = {name: value for name, value in vars(part).items() if name not in torchs_own}
        buffers = {name: value for name, value in part.named_buffers(recurse=False) if prefix + name not in names}
        for name, value in {**own, **buffers}.items():
            yield prefix + name, [_copy(each) for each in _values_in(value) if id(each) not in saved]


def _values_in(value: object) -> Iterator[object]:
    """Yield the numbers and tensors of an attribute, including those in lists, tuples, queues and mappings."""
    if isinstance(value, int | float | Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (each for item in value.values() for each in _values_in(item))
    elif isinstance(value, list | tuple | deque):
        yield from (each for item in value for each in _values_in(item))


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _equal(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(_same(one, other) for one, other in zip(some, others, strict=True))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other).all())
    return type(one) is type(other) and bool(one == other)


def trained_state(objective: Objective, **engine: Any) -> State:
    """Train a few steps with ``engine``'s settings on this process's share of the images; return the state."""
    with seeded(), TrainingEngine(settings(optimizer=_SMOOTH, **engine), module_of(objective)) as trainer:
        rank, size = trainer.world.rank, trainer.world.size
        parts = trainer.experiment.engine.accumulation_steps
        share = _NUM_IMAGES // (size * parts)
        for step in range(NUM_STEPS):
            whole = batch_of_step(objective, step)
            first = rank * share * parts
            trainer.step([part_of(whole, first + share * i, first + share * (i + 1)) for i in range(parts)])
        names = state_of(trainer.module)
        return {name: value for name, value in trainer.full_state_dict().items() if name in names}


def states_of_two_processes(objective: Objective) -> tuple[State, State]:
    """Train in two processes, with half of the images each; return their states.

    Raises:
        SkipTest: the objective cannot be sent to another process, or two processes cannot be started here.
        AssertionError: training fails in one of them, or does not end.
    """
    try:
        sent = pickle.dumps(objective)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _unsent(objective, str(error)) from error
    with TemporaryDirectory() as folder:
        context = _context()
        ranks = [context.Process(target=_train_as_one_of_two, args=(sent, rank, folder)) for rank in range(2)]
        _run(ranks)
        unsent = Path(folder) / "unsent-0"
        if unsent.exists():
            raise _unsent(objective, unsent.read_text(encoding="utf-8"))
        faults = [path.read_text(encoding="utf-8") for path in sorted(Path(folder).glob("fault-*"))]
        if faults:
            raise AssertionError(f"does not train with two processes: {faults[0]}")
        results = [Path(folder) / f"state-{rank}" for rank in range(2)]
        if not all(path.exists() for path in results):
            codes = [rank.exitcode for rank in ranks]
            raise SkipTest(
                f"two processes could not be started here, or not send it there: their exit codes are {codes}"
            )
        first, second = (torch.load(path, weights_only=True) for path in results)
    return first, second


def _run(ranks: Sequence[Any]) -> None:
    """Start all processes and wait for them; if one fails, terminate the others, which may wait for it."""
    try:
        for rank in ranks:
            rank.start()
    except (OSError, RuntimeError, EOFError) as error:
        _end(ranks)
        raise SkipTest(f"two processes could not be started here ({type(error).__name__}: {error})") from error
    end = time.monotonic() + _MOST_SECONDS
    while any(rank.is_alive() for rank in ranks) and not any(rank.exitcode for rank in ranks):
        wait([rank.sentinel for rank in ranks if rank.is_alive()], timeout=max(0.0, end - time.monotonic()))
        if time.monotonic() > end:
            _end(ranks)
            raise AssertionError(
                f"two processes that train together did not end within {_MOST_SECONDS} s: is there a collective that "
                "only one of them calls?"
            )
    _end(ranks)


def _end(ranks: Sequence[Any]) -> None:
    for rank in ranks:
        if rank.pid is not None:
            rank.terminate() if rank.is_alive() else None
            rank.join()


def _context() -> Any:
    """Return a context that forks processes from a server, which loads the engine once for all objectives."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # With GPUs, each process loads the engine itself, after it has hidden the GPUs.
    engine = [] if torch.cuda.is_available() else ["aimcore.engine.preloading"]
    context.set_forkserver_preload(["aimcore.testing.module_state", *engine])
    return context


def _train_as_one_of_two(sent: bytes, rank: int, folder: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    try:
        objective = pickle.loads(sent)  # the parent has just pickled it
    except (ImportError, AttributeError) as error:
        Path(folder, f"unsent-{rank}").write_text(str(error), encoding="utf-8")
        sys.exit(1)
    try:
        join(Path(folder) / "meeting", rank, 2)
        torch.save(trained_state(objective, num_threads=1), Path(folder) / f"state-{rank}")
    except (*FAULTS, AssertionError) as fault:
        Path(folder, f"fault-{rank}").write_text(f"{type(fault).__name__}: {fault}", encoding="utf-8")
        sys.exit(1)


def _unsent(objective: Objective, why: str) -> SkipTest:
    return SkipTest(
        f"{type(objective).__name__} cannot be sent to a second process ({why}): define it in a module that can be "
        "imported"
    )


def differences(found: State, expected: State, start: State, *, share: float = 0.25, least: float = 0.05) -> list[str]:
    """Return names of values that differ from ``expected``: integers at all, floats by more than ``share`` of a change.

    The change of a value is measured from ``start``. Differences below ``least`` of the largest change do not count:
    with precision "bf16" training begins with rounded weights, which an average approaches.
    """
    if found.keys() != expected.keys():
        return sorted(found.keys() ^ expected.keys())
    ways = {name: float((value - start[name]).norm()) for name, value in expected.items() if value.is_floating_point()}
    noise = least * max(ways.values(), default=0.0)
    return [
        name
        for name, value in expected.items()
        if (
            float((found[name] - value).norm()) > share * ways[name] + noise
            if name in ways
            else not torch.equal(found[name], value)
        )
    ]
