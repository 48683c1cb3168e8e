"""Training steps: aimcore's engine beside a plain loop over a plain model, and both beside the machine's own peak.

    python benchmarks/training_step.py                                    # all sizes
    python benchmarks/training_step.py --sizes medium --json step.json --profile

Each size is measured in four forms: ``aimcore`` is the engine; ``module`` its module in a loop without an engine;
``plain`` a straightforward PyTorch loop over a straightforward implementation (``plain_models.py``: autocast, fused
AdamW, head on every patch, a dense mask through fused attention), checked to give the same loss; ``lightly`` are
lightly's AIM modules, where lightly is installed.

Each round lets every form take a few steps and then measures the peak: the best rate of bfloat16 products of 1024, 2048
and 4096 rows and columns and of the products of the step itself. All ratios are medians of the ratios of one round, so
that a machine whose speed drifts favours none; engine and module take each step in turn. The first step of a form in a
round is not measured: memory that another form has just given back to the system comes at the price of page faults. The
share of the peak counts only arithmetic
that the loss needs, see ``needed_flops.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import attrs
import torch
from lightly_aim import lightly_form
from machine import allocate_as_usual, describe, peak_of
from needed_flops import needed_flops, step_shapes
from plain_models import plain_of
from step_sizes import SIZES, Size
from torch import Tensor, nn

from aimcore import Batch, Engine, Experiment, Objective, ObjectiveModule
from aimcore.engine import TrainingEngine, build_module
from aimcore.engine.host_memory import keep_freed_memory
from aimcore_objectives import Multimodal

LOSS_BOUND = 2e-2
"""Largest relative difference of the first losses: both forms round to bfloat16, at other places."""

STEPS = 4
"""Steps of a form in one round, the first of which is not measured."""

Step = Callable[[Batch], float]


@attrs.frozen
class Row:
    """The numbers of one size."""

    size: str
    milliseconds: dict[str, float]
    """Median per form."""
    ratio: float
    """Time of ``plain`` / time of ``aimcore``, the median of the rounds."""
    share_of_peak: float
    """Needed arithmetic of the engine's step per second, relative to the peak of the round; the median."""
    engine_overhead: float
    """Time of ``aimcore`` / time of ``module`` - 1, the median of the rounds."""
    patches_per_second: float
    needed_gflop: float
    """Arithmetic of a step that the loss needs, the mean over the batches."""
    peak_gflops: tuple[float, float]
    """Smallest and largest peak of a round."""


def main() -> None:
    """Print a table; write it with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), default=0)
    parser.add_argument("--rounds", type=int, default=9, help="rounds after one that warms up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--profile", action="store_true", help="print the operators of one step of each form")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe(), flush=True)
    rows = []
    for name in options.sizes:
        engine = Engine(zero_stage=options.zero_stage, num_threads=options.threads)
        rows.append(measured(SIZES[name], engine, options.rounds, is_profiled=options.profile))
        print(text_of(rows[-1]), flush=True)
    if options.json is not None:
        machine = {"torch": torch.__version__, "threads": options.threads, "processor": platform.processor()}
        options.json.write_text(json.dumps({"machine": machine, "rows": [attrs.asdict(row) for row in rows]}, indent=1))


def measured(size: Size, engine_settings: Engine, rounds: int, *, is_profiled: bool) -> Row:
    """Measure one size; forms and peak alternate.

    Raises:
        RuntimeError: the plain form has another loss.
    """
    experiment = attrs.evolve(size.experiment(), engine=engine_settings)
    with TrainingEngine(experiment) as engine:
        module = build_module(experiment)
        plain = plain_of(module)
        forms: dict[str, Step] = {
            "plain": loop(plain, plain, experiment),
            "module": loop(module, lambda batch: total(module, batch), experiment),
            "aimcore": lambda batch: total_of(engine.step([batch]).losses, experiment.objective),
        }
        if (form := lightly_form(experiment)) is not None:
            forms["lightly"] = loop(form, form, experiment)
        shapes, measurements = list(step_shapes(experiment)), []
        for number in range(rounds + 1):
            # Every step has new prefixes, as in training: kernels are compiled for the number of scored patches.
            batches = [size.batch(experiment, number * STEPS + step) for step in range(STEPS)]
            if number == 0:
                require_equal({name: form_step(batches[0]) for name, form_step in forms.items()})
            needed = mean(needed_flops(experiment, batch) for batch in batches[1:]) / 1e9
            measurements.append((*measured_round(forms, batches, number, shapes), needed))
        if is_profiled:
            print_profiles(forms, batches[0])
    times, peaks, needed_of_all = zip(*measurements[1:], strict=True)
    milliseconds = {name: median(of_round[name] for of_round in times) for name in forms}
    return Row(
        size.name,
        milliseconds,
        median(of_round["plain"] / of_round["aimcore"] for of_round in times),
        median(1e3 * needed / of_round["aimcore"] / peak for of_round, peak, needed in measurements[1:]),
        median(of_round["aimcore"] / of_round["module"] for of_round in times) - 1,
        batches[0].images.patches_BNF[..., 0].numel() / milliseconds["aimcore"] * 1e3,
        mean(needed_of_all),
        (min(peaks), max(peaks)),
    )


def measured_round(
    forms: Mapping[str, Step], batches: Sequence[Batch], number: int, shapes: Sequence[tuple[int, int, int]]
) -> tuple[dict[str, float], float]:
    """Return the mean milliseconds of a step of each form, without its first one, and the peak in GFLOP/s."""
    times = dict.fromkeys(forms, 0.0)
    groups = [("plain",), ("module", "aimcore"), ("lightly",)]
    for group in groups[:: -1 if number % 2 else 1]:  # no form always follows the same one
        # The engine keeps freed memory, and a plain loop does not. The module alone is treated like the engine.
        allocate_as_usual()
        if "aimcore" in group:
            keep_freed_memory()
        for place, batch in enumerate(batches):
            for name in (name for name in group[:: -1 if place % 2 else 1] if name in forms):
                start = perf_counter()
                forms[name](batch)
                times[name] += 1e3 * (perf_counter() - start) / (len(batches) - 1) * (place > 0)
    return times, peak_of(torch.bfloat16, shapes)


def loop(module: nn.Module, loss_of: Callable[[Batch], Tensor], experiment: Experiment) -> Step:
    """Return the step that anyone would write: autocast, backward, clip, fused AdamW."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    module.train()

    def step(batch: Batch) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), experiment.optimizer.gradient_clipping or 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def total(module: ObjectiveModule, batch: Batch) -> Tensor:
    """Return the weighted sum of the mean losses."""
    losses = module(batch).values()
    return torch.stack([loss.sum * loss.weight / loss.num_targets for loss in losses]).sum()


def total_of(losses: Mapping[str, float], objective: Objective) -> float:
    """Return the weighted sum of the mean losses of a step."""
    weights = {"image": objective.image_weight} if isinstance(objective, Multimodal) else {}
    return sum(weights.get(name, 1.0) * value for name, value in losses.items())


def require_equal(losses: Mapping[str, float]) -> None:
    """Refuse forms that do not compute the same; lightly draws weights of its own.

    Raises:
        RuntimeError: a loss differs.
    """
    for name in {*losses} - {"aimcore", "lightly"}:
        if abs(losses[name] / losses["aimcore"] - 1) > LOSS_BOUND:
            raise RuntimeError(f"the forms do not compute the same loss: {dict(losses)}")


def print_profiles(forms: Mapping[str, Step], batch: Batch) -> None:
    """Print the operators that take most time in one step of each form."""
    for name, step in forms.items():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            step(batch)
        print(f"\n{name}\n{profile.key_averages().table(sort_by='self_cpu_time_total', row_limit=25)}")


def text_of(row: Row) -> str:
    """Return a row as text."""
    times = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in row.milliseconds.items())
    low, high = row.peak_gflops
    return (
        f"{row.size}: {times}\n"
        f"    plain / aimcore {row.ratio:.2f}, {row.share_of_peak:.1%} of a peak of {low:.0f} to {high:.0f} GFLOP/s "
        f"({row.needed_gflop:.0f} GFLOP needed), engine {row.engine_overhead:+.1%}, "
        f"{row.patches_per_second:.0f} patches/s"
    )


if __name__ == "__main__":
    main()
