"""Memory of training: what ``aimcore plan`` counts beside what one process uses.

    python benchmarks/plan_memory.py [--size small --size 384x6 --size 768x12] [--stage 0 ...] [--precision autocast]

Each row is a process of its own. It trains a tiny model first, so that libraries are loaded and threads have started;
then the peak of its resident memory is reset, the model is built and trained for three steps, and the growth is
compared with the prediction for a CPU, where attention holds its probabilities. The allocator returns freed memory to
the system at once (``MALLOC_MMAP_THRESHOLD_``), or the peak would include gaps of an earlier peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import torch

from aimcore import Batch, Data, Engine, Experiment, PatchGrid
from aimcore.contracts.images import Images
from aimcore.engine import TrainingEngine
from aimcore.engine.cost import cost_of
from aimcore.engine.peak_memory import peak_memory, resident, restart_peak
from aimcore.engine.plan import stage_plan
from aimcore.testing.small_parts import StandInSource
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_trunks import ViT

SIZES = {
    "tiny": (ViT(width=16, depth=1, num_heads=2, patch_size=4), MLPHead(width=16, depth=1), 8, 8),
    "small": (ViT(width=128, depth=4, num_heads=4, patch_size=4), MLPHead(width=128, depth=2), 28, 64),
    "384x6": (ViT(width=384, depth=6, num_heads=3, patch_size=14), MLPHead(width=512, depth=6), 224, 8),
    "768x12": (ViT(width=768, depth=12, num_heads=6, patch_size=14), MLPHead(width=768, depth=12), 224, 4),
}
"""Trunk, head, image size and batch size."""
_STEPS = 3


def experiment(size: str, engine: Engine) -> Experiment:
    """Return an experiment that trains a model of this size."""
    trunk, head, image_size, batch_size = SIZES[size]
    source = StandInSource()
    return Experiment(
        name=size,
        data=Data(train=source, validation=source, batch_size=batch_size, image_size=image_size),
        trunk=trunk,
        objective=NextPatch(head=head),
        num_steps=100,
        engine=engine,
    )


def random_batch(made: Experiment, number: int) -> Batch:
    """Return the images of step ``number``."""
    size, patch_size = made.data.batch_size, made.trunk.patch_size
    side = made.data.image_size // patch_size
    patches_BNF = torch.randn(size, side**2, 3 * patch_size**2, generator=torch.Generator().manual_seed(number))
    images = Images(patches_BNF=patches_BNF, grids=(PatchGrid(side, side),) * size, patch_size=patch_size)
    return Batch(images=images, sample_numbers_B=torch.arange(size) + size * number)


def train(made: Experiment) -> None:
    """Make a few steps."""
    with TrainingEngine(made) as engine:
        for step in range(_STEPS):
            engine.step([random_batch(made, step)])


def measured(made: Experiment) -> int:
    """Return the growth of this process's resident memory at its peak."""
    train(experiment("tiny", made.engine))
    restart_peak(torch.device("cpu"))
    before = resident("VmRSS")
    train(made)
    return peak_memory(torch.device("cpu")) - before


def row(size: str, engine: Engine) -> dict[str, float]:
    """Return bytes: the parts of the prediction, the prediction, and the measurement."""
    made = experiment(size, engine)
    found = measured(made)
    plan = stage_plan(cost_of(made), engine, 1)
    return {
        "weights, optimiser": plan.state.weights + plan.state.optimizer,
        "gradients": plan.state.gradients,
        "casts": plan.casts,
        "bucket": plan.bucket,
        "activations": made.data.batch_size * plan.activations_per_image,
        "gradients of a block": made.data.batch_size * plan.block_per_image,
        "predicted": plan.peak(made.data.batch_size, 1),
        "measured": found,
    }


def main() -> None:
    """Print one row per size and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=list(SIZES))
    parser.add_argument("--stage", action="append", type=int, choices=(0, 1, 2, 3))
    parser.add_argument("--precision", choices=("fp32", "bf16", "autocast"), default="autocast")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes, stages = options.size or ["small", "384x6", "768x12"], options.stage or [0, 1, 2, 3]
    if options.one:
        print(json.dumps(row(sizes[0], Engine(zero_stage=stages[0], precision=options.precision))))
        return
    headings = ("weights+", "gradients", "casts", "bucket", "activat.", "block", "predicted", "measured")
    print("MB         stage" + "".join(f"{heading:>10}" for heading in headings) + "     ratio")
    for size in sizes:
        for stage in stages:
            found = _in_its_own_process(size, stage, options.precision)
            numbers = "".join(f"{value / 1e6:10.1f}" for value in found.values())
            print(f"{size:10} {stage:5}{numbers}{found['measured'] / found['predicted']:10.2f}", flush=True)


def _in_its_own_process(size: str, stage: int, precision: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", "--size", size, "--stage", str(stage), "--precision", precision]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    numbers: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return numbers


if __name__ == "__main__":
    main()
