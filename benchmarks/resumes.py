"""Continue runs at every other ZeRO stage and on another number of processes, and compare their losses.

    python benchmarks/resumes.py FOLDER [--precisions fp32 autocast bf16]

A run is trained to its end at each stage on one and on two processes. Then everything that it wrote after half of its
steps is removed from a copy, as if it had been killed there, and the copy is continued at each stage on one and on two
processes. The losses of the other half are compared with those of the run that was not interrupted. FOLDER receives the
runs; the exit status is 1 if a loss differs by more than its tolerance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from pathlib import Path

import attrs
import torch
from train_kills import NAME, NUM_STEPS, experiment, losses, start, statuses

import aimcore.engine.preloading
from aimcore import Experiment
from aimcore.io.run_folder import StudyFolder, step_of

HALF = NUM_STEPS // 2
TOLERANCE = {"fp32": 1e-5, "autocast": 2e-3, "bf16": 2e-3}
"""Largest relative difference of a loss after a change of the layout: gradients are added in another order."""

Layout = tuple[int, int]
"""ZeRO stage and number of processes."""


def layouts(precision: str) -> list[Layout]:
    """Return the layouts of a precision, in the order of the table."""
    stages = (1, 2, 3) if precision == "bf16" else (0, 1, 2, 3)
    return [(stage, processes) for processes in (1, 2) for stage in stages]


def settings(precision: str, stage: int) -> Experiment:
    """Return the run, which keeps all checkpoints."""
    run = experiment(stage)
    return attrs.evolve(run, engine=attrs.evolve(run.engine, precision=precision, keep_checkpoints=NUM_STEPS))


def trained(out: Path, precision: str, layout: Layout) -> dict[int, float]:
    """Train, or continue, in ``out``; return the loss of each step.

    Raises:
        RuntimeError: a process failed.
    """
    stage, processes = layout
    if any(found := statuses(start(out, settings(precision, stage), processes))):
        raise RuntimeError(f"the processes in {out} ended with {found}; {StudyFolder(out).run(NAME).error} may say why")
    return losses(out)


def cut(out: Path) -> list[str]:
    """Remove what a run wrote after half of its steps; return the lines of metrics that are left."""
    run = StudyFolder(out).run(NAME)
    for checkpoint in run.complete_checkpoints():
        if step_of(checkpoint) > HALF:
            shutil.rmtree(checkpoint)
    run.validation.unlink(missing_ok=True)
    kept = [line for line in lines_of(out) if json.loads(line)["step"] < HALF]
    run.metrics.write_text("".join(kept), encoding="utf-8")
    return kept


def lines_of(out: Path) -> list[str]:
    """Return the lines of a run's metrics."""
    return StudyFolder(out).run(NAME).metrics.read_text(encoding="utf-8").splitlines(keepends=True)


def difference(found: dict[int, float], expected: dict[int, float]) -> float:
    """Return the largest relative difference of a loss after the interruption."""
    return max(abs(found[step] / expected[step] - 1) for step in range(HALF, NUM_STEPS))


def main() -> int:
    """Print a table per precision; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    options = parser.parse_args()
    torch.set_num_threads(1)
    is_bad = False
    for precision in options.precisions:
        names = [f"{stage}/{processes}" for stage, processes in layouts(precision)]
        print(
            f"\n{precision}: ZeRO stage / processes, saved (rows) and continued (columns)\n     | {' | '.join(names)}"
        )
        whole = {
            layout: trained(_folder(options.folder, precision, layout), precision, layout)
            for layout in layouts(precision)
        }
        same, others = [], []
        for saved in layouts(precision):
            row = []
            for continued in layouts(precision):
                out = _folder(options.folder, precision, saved, continued)
                shutil.copytree(_folder(options.folder, precision, saved), out)
                kept = cut(out)
                row.append(difference(trained(out, precision, continued), whole[saved]))
                if lines_of(out)[:HALF] != kept:  # their times would differ
                    raise RuntimeError(f"the run in {out} began again instead of continuing")
                (same if saved == continued else others).append(row[-1])
                shutil.rmtree(out)
            print(
                f"{saved[0]}/{saved[1]} | " + " | ".join("equal" if value == 0 else f"{value:.0e}" for value in row),
                flush=True,
            )
        print(
            f"same layout: at most {max(same):.1e} of {len(same)}; others: at most {max(others):.1e} of {len(others)}"
        )
        is_bad = is_bad or max(same) > 0 or max(others) > TOLERANCE[precision]
    return int(is_bad)


def _folder(parent: Path, precision: str, *steps: Layout) -> Path:
    return parent / "-".join([precision, *itertools.starmap("{}x{}".format, steps)])


if __name__ == "__main__":
    assert aimcore.engine.preloading
    sys.exit(main())
