"""Training at every ZeRO stage and precision, on 1, 2 and 4 processes, compared with a plain PyTorch loop.

    python benchmarks/equality.py                          # the whole table; --json FILE writes every number
    python benchmarks/equality.py --covering               # few cells, which cover pairs of stages, precisions, ...
    python benchmarks/equality.py --only lora --only lit   # some variants

A cell is an objective (AIM's, AIMv2's) with a variant (``equality_cells.py``), a precision, a stage and a number of
processes on the CPU. It takes four large steps. The plain loop (``plain_steps.py``) takes the same steps in one process
in the same precision. In float32 it takes whole batches. In other precisions, where rounding depends on what is
multiplied at once, it takes the micro-batches of the cell and adds their gradients in float32; bfloat16 gradients of
several uses of one tensor are added in the order of the cell's stage. Compared are losses, relative to the largest of
the step, gradient norms, and weights and buffers, relative to how far each tensor has moved; what has not moved must be
equal. Settings that the engine refuses must be refused, for the expected reason. The exit status is 1 if a difference
exceeds its tolerance, or a cell ends with an error or is not refused.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from equality_cells import (
    NUM_IMAGES,
    NUM_STEPS,
    PROCESSES,
    STAGES,
    Cell,
    batch_of,
    cells,
    covering,
    expected_refusal,
    experiment_of,
    multipliers,
    variants,
)
from loguru import logger
from plain_steps import Steps, train_plainly
from torch import Tensor

import aimcore.engine.preloading
from aimcore import Batch, InvalidValue
from aimcore.engine import TrainingEngine, initial_module
from aimcore.engine.deepspeed_config import sums_in_bfloat16
from aimcore.testing.fixtures import part_of

MEASURES = ("loss", "norm", "weights")
TOLERANCES = {
    # The same float32 sums in another order: some units of 2^-24, and Adam's steps enlarge them.
    "fp32": {"loss": 1e-6, "norm": 1e-5, "weights": 1e-4},
    # The same, and where it meets the middle of two bfloat16 numbers, one value is rounded the other way (2^-8).
    "autocast": {"loss": 2e-4, "norm": 1e-3, "weights": 2e-3},
    "bf16": {"loss": 2e-4, "norm": 1e-3, "weights": 2e-3},
    # Stage 1 rounds sums of gradients over processes and micro-batches to bfloat16, by up to 2^-9 each; Adam divides by
    # their size, so the steps of small gradients that nearly cancel differ the most.
    "bf16, stage 1, parts": {"loss": 1e-3, "norm": 1e-2, "weights": 1e-1},
    # LiT's loss compares all samples of a batch, so that the plain loop cannot use parts: all products are rounded
    # differently.
    "low, lit, parts": {"loss": 1e-2, "norm": 2e-2, "weights": 5e-2},
}
"""Largest differences by kind of cell, see :func:`kind_of`."""

Key = tuple[str, str, str, int, bool]
"""Objective, variant, precision, number of parts of a batch, and whether gradients are added in the order of stage 3:
cells with the same have the same plain loop."""


def num_parts(cell: Cell) -> int:
    """Return the number of micro-batches of a step, over all processes."""
    return cell.processes * experiment_of(cell).engine.accumulation_steps


def key_of(cell: Cell) -> Key:
    """Return what the plain loop of a cell depends on."""
    rounds = cell.precision != "fp32"
    parts = num_parts(cell) if rounds and cell.variant != "lit" else 1
    return cell.objective, cell.variant, cell.precision, parts, rounds and cell.stage == 3


def kind_of(cell: Cell) -> str:
    """Return the name of the tolerances of a cell."""
    if cell.precision == "fp32" or num_parts(cell) == 1:
        return cell.precision
    if cell.variant == "lit":
        return "low, lit, parts"
    return "bf16, stage 1, parts" if sums_in_bfloat16(experiment_of(cell).engine) else cell.precision


@attrs.frozen
class Result:
    """The differences of one cell."""

    cell: Cell
    loss: float
    norm: float
    weights: float
    where: str
    """The tensor with the largest difference."""
    error: str = ""
    refused: str = ""
    """Why the engine does not have these settings, where that is expected."""

    @property
    def share(self) -> float:
        """The largest difference relative to its tolerance; infinite after an error."""
        if self.refused or self.error:
            return 0.0 if self.refused else math.inf
        found = [getattr(self, name) / TOLERANCES[kind_of(self.cell)][name] for name in MEASURES]
        return max(found) if all(map(math.isfinite, found)) else math.inf

    def record(self) -> dict[str, Any]:
        """Return the entry of the JSON file."""
        differences = {name: getattr(self, name) for name in (*MEASURES, "where", "error", "refused")}
        return {**attrs.asdict(self.cell), **differences, "share_of_tolerance": self.share}


def failed(cell: Cell, error: str) -> Result:
    """Return the result of a cell that gave no numbers."""
    return Result(cell, math.inf, math.inf, math.inf, "", error)


def refusal(cell: Cell) -> Result | None:
    """Return the result of a cell whose settings are refused or should be; None for a cell to train."""
    expected = expected_refusal(cell)
    try:
        experiment_of(cell)
    except InvalidValue as error:
        if expected and expected in str(error):
            return Result(cell, 0.0, 0.0, 0.0, "", refused=expected)
        return failed(cell, f"refused unexpectedly: {error}")
    return failed(cell, f"not refused, although {expected!r} is expected") if expected else None


def parts_of(cell: Cell, step: int, number: int) -> list[Batch]:
    """Return the batch of a step in equal parts."""
    whole, size = batch_of(experiment_of(cell).objective, step), NUM_IMAGES // number
    return [part_of(whole, part * size, (part + 1) * size) for part in range(number)]


def plain(cell: Cell) -> Steps:
    """Train the plain loop of a cell."""
    experiment, (*_, number, by_use) = experiment_of(cell), key_of(cell)
    names = [name for name, _ in initial_module(experiment).named_parameters()]
    batches = [parts_of(cell, step, number) for step in range(NUM_STEPS)]
    return train_plainly(experiment, batches, multipliers(cell.variant, names), by_use=by_use)


def compared(cell: Cell, expected: Steps, rank: int) -> Result:
    """Train a cell; every process of it calls this."""
    with TrainingEngine(experiment_of(cell)) as engine:
        mine = [parts_of(cell, step, num_parts(cell))[rank :: cell.processes] for step in range(NUM_STEPS)]
        results = [engine.step(parts) for parts in mine]
        weights = engine.full_state_dict()
    losses = [
        _relative(result.losses.get(name, math.nan), value, max(means.values()))
        for result, means in zip(results, expected.losses, strict=True)
        for name, value in means.items()
    ]
    norms = [_relative(result.gradient_norm, norm, norm) for result, norm in zip(results, expected.norms, strict=True)]
    distances = {name: _distance(weights[name], expected, name) for name in expected.after}
    where = max(distances, key=lambda name: distances[name])
    return Result(cell, max(losses), max(norms), distances[where], where)


def _relative(found: float, expected: float, scale: float) -> float:
    return abs(found - expected) / scale if math.isfinite(found) else math.inf


def _distance(found: Tensor, expected: Steps, name: str) -> float:
    """Return the distance from the expected tensor, relative to how far that has moved."""
    after, moved = expected.after[name], expected.after[name] - expected.before[name]
    distance = float((found.to(after) - after).norm())
    if not float(moved.abs().max()):
        return distance / (float(after.norm()) or 1.0)
    return distance / float(moved.norm())


def run_processes(some: Sequence[Cell], expected: Mapping[Key, Steps]) -> list[Result]:
    """Train cells of one number of processes; a cell that fails ends its processes, and others continue after it."""
    results: list[Result] = []
    while len(results) < len(some):
        results += _launched(some[len(results) :], expected)
    return results


def _launched(some: Sequence[Cell], expected: Mapping[Key, Steps]) -> list[Result]:
    """Fork as many processes as the cells have, and let them train the cells until one fails."""
    processes = some[0].processes
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(processes):
            pid = os.fork()
            if not pid:
                _become_rank(rank, processes, port, some, expected, Path(folder))
            started.append(pid)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
        out = Path(folder) / "results"
        found = [_read(json.loads(line)) for line in out.read_text().splitlines()] if out.exists() else []
        failures = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("[0-9]*"))]
    if any(statuses):
        # One process may have gone on after another has failed.
        number = min((each["number"] for each in failures), default=min(len(found), len(some) - 1))
        texts = [each["error"] for each in failures if each["number"] == number]
        found = [*found[:number], failed(some[number], "; ".join(texts) or f"processes ended with {statuses}")]
    return found


def _read(entry: dict[str, Any]) -> Result:
    entry.pop("share_of_tolerance")
    return Result(Cell(**{field.name: entry.pop(field.name) for field in attrs.fields(Cell)}), **entry)


def _become_rank(
    rank: int, processes: int, port: str, some: Sequence[Cell], expected: Mapping[Key, Steps], folder: Path
) -> None:
    """Train the cells in this process, which was just forked, and end it."""
    status, number = 1, 0
    try:
        if processes > 1:
            sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
            os.environ.update(sizes, RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for number, cell in enumerate(some):  # noqa: B007 (the failure names it)
            result = compared(cell, expected[key_of(cell)], rank)
            if rank == 0:
                with (folder / "results").open("a") as file:
                    file.write(json.dumps(result.record()) + "\n")
        status = 0
    except BaseException as error:
        text = f"process {rank}: {type(error).__name__}: {error}"[:500]
        (folder / str(rank)).write_text(json.dumps({"number": number, "error": text}))
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def table(results: Iterable[Result]) -> str:
    """Return a line per objective, variant and precision, with a column per stage and number of processes."""
    rows: dict[tuple[str, str, str], dict[tuple[int, int], Result]] = defaultdict(dict)
    for result in results:
        cell = result.cell
        rows[cell.objective, cell.variant, cell.precision][cell.processes, cell.stage] = result
    columns = [(processes, stage) for processes in PROCESSES for stage in STAGES]
    lines = [f"{'processes x stage':33}" + "".join(f"{f'{n} x {stage}':>9}" for n, stage in columns)]
    for key, found in rows.items():
        shown = [_shown(found.get(column)) for column in columns]
        lines.append("{:6} {:16} {:9}".format(*key) + "".join(f"{text:>9}" for text in shown))
    return "\n".join(lines)


def _shown(result: Result | None) -> str:
    """Return the largest difference, with a mark if one exceeds its tolerance."""
    if result is None:
        return "-"
    if result.refused or result.error:
        return "refused" if result.refused else "error!"
    largest = max(getattr(result, name) for name in MEASURES)
    return f"{largest:.0e}{'!' if result.share > 1 else ''}"


def maxima(results: Sequence[Result]) -> str:
    """Return the largest difference and the tolerance of every measure, by kind of cell."""
    lines = [f"{'kind':21}{'cells':>6}" + "".join(f"{name:>22}" for name in MEASURES)]
    for kind, tolerances in TOLERANCES.items():
        some = [each for each in results if not (each.refused or each.error) and kind_of(each.cell) == kind]
        if some:
            largest = {name: max(getattr(result, name) for result in some) for name in MEASURES}
            shown = "".join(f"{f'{largest[name]:.1e} of {tolerances[name]:.0e}':>22}" for name in MEASURES)
            lines.append(f"{kind:21}{len(some):6}{shown}")
    refusals = Counter(result.refused for result in results if result.refused)
    return "\n".join([*lines, *(f"refused, {number} cells: {reason}" for reason, number in refusals.items())])


def results_of(chosen: Sequence[Cell]) -> list[Result]:
    """Compare cells, in their own order."""
    refusals = {cell: result for cell in chosen if (result := refusal(cell))}
    trained = [cell for cell in chosen if cell not in refusals]
    expected: dict[Key, Steps] = {}
    for cell in trained:
        if key_of(cell) not in expected:
            expected[key_of(cell)] = plain(cell)
    results = list(refusals.values())
    for processes in PROCESSES:
        results += run_processes([cell for cell in trained if cell.processes == processes], expected)
    return sorted(results, key=lambda result: result.cell)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--covering", action="store_true", help="few cells, which cover pairs of levels of two factors")
    parser.add_argument("--only", action="append", choices=tuple(variants()), help="a variant")
    parser.add_argument("--processes", type=int, action="append", choices=PROCESSES, help="a number of processes")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args(arguments)
    logger.remove()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    begun = time.perf_counter()
    some = [cell for cell in cells() if not options.only or cell.variant in options.only]
    some = [cell for cell in some if not options.processes or cell.processes in options.processes]
    results = results_of(covering(some) if options.covering else some)
    over = [result for result in results if not result.share <= 1]
    print(f"{table(results)}\n\n{maxima(results)}\n")
    for result in over:
        print(f"OVER: {json.dumps(result.record())}")
    print(f"{len(results)} cells in {time.perf_counter() - begun:.0f} s, {len(over)} over their tolerance")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        records = {"machine": machine, "tolerances": TOLERANCES, "rows": [result.record() for result in results]}
        options.json.write_text(json.dumps(records, indent=1))
    return 1 if over or not results else 0


if __name__ == "__main__":
    assert aimcore.engine.preloading
    sys.exit(main())
