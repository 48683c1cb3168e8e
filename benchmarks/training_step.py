"""One training step: aimcore's engine beside a plain PyTorch loop, and both beside the machine's own peak.

    python benchmarks/training_step.py [--zero-stage 0]

The experiment is ``small`` of examples/ablation_pattern.py. Steps alternate between the two, so that a machine whose
speed drifts does not favour either.
"""

from __future__ import annotations

import argparse
import itertools
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import torch
from machine import describe, peak_gflops

from aimcore import Batch, Engine, Experiment, ObjectiveModule
from aimcore.data import train_steps
from aimcore.engine import TrainingEngine, build_module
from aimcore.engine.cost import cost_of

STUDY = Path(__file__).parent.parent / "examples" / "ablation_pattern.py"


def batches(experiment: Experiment, num_steps: int) -> list[list[Batch]]:
    """The first steps' data, loaded before the clock starts."""
    steps = train_steps(
        experiment.data,
        experiment.data.train.open(),
        patch_size=experiment.trunk.patch_size,
        seed=0,
        num_steps=num_steps,
    )
    return list(steps)


def plain_step(module: ObjectiveModule, experiment: Experiment) -> Callable[[list[Batch]], float]:
    """The loop that anyone would write: autocast, backward, clip, AdamW."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=experiment.optimizer.peak_lr, fused=True)

    def step(micro_batches: list[Batch]) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            (loss,) = module(micro_batches[0]).values()
        mean = loss.sum / loss.num_targets
        mean.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(mean.detach())

    return step


def medians(
    forms: dict[str, Callable[[list[Batch]], object]], data: Iterator[list[Batch]], num: int
) -> dict[str, float]:
    """Median milliseconds of each form, steps taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(num):
        micro_batches = next(data)
        for name, form in forms.items():
            start = time.perf_counter()
            form(micro_batches)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: sorted(taken)[len(taken) // 2] for name, taken in times.items()}


def main() -> None:
    """Print milliseconds, the ratio, and the share of the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), default=0)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    experiment: Experiment = runpy.run_path(str(STUDY))["study"]("small").experiments[0]
    experiment = attrs.evolve(experiment, engine=Engine(zero_stage=arguments.zero_stage))
    print(describe())
    data = itertools.cycle(batches(experiment, 8))
    with TrainingEngine(experiment) as engine:
        forms = {"plain": plain_step(build_module(experiment), experiment), "aimcore": engine.step}
        medians(forms, data, 5)
        taken = medians(forms, data, arguments.steps)
    gflop = cost_of(experiment).flops_per_image * experiment.data.batch_size / 1e9
    peak = peak_gflops(torch.bfloat16)
    for name, milliseconds in taken.items():
        rate = gflop / milliseconds * 1e3
        print(f"{name:8} {milliseconds:7.1f} ms/step  {rate:6.0f} GFLOP/s  {rate / peak:.1%} of the bfloat16 peak")
    print(f"aimcore / plain: {taken['aimcore'] / taken['plain']:.3f}")


if __name__ == "__main__":
    main()
