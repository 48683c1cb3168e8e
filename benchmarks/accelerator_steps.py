"""Training steps of the papers' models: time, model-FLOPs utilisation and memory, beside a plain PyTorch loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import attrs
import torch
from accelerator_rows import Finding, Row, Setting, attempted

from aimcore import Batch, Data, Engine, Experiment, Objective, ObjectiveModule, PatchGrid, Text, Trunk
from aimcore.contracts.images import Images
from aimcore.engine import TrainingEngine, build_module
from aimcore.engine.cost import Cost, cost_of
from aimcore.testing.small_parts import StandInSource
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives import Multimodal, NextPatch
from aimcore_trunks import ViT, aim, aimv2
from aimcore_trunks.recipes import aim_optimizer

T = TypeVar("T")

OVERHEAD_BOUND = 1.05
"""Largest time of a step of the engine, relative to the plain loop. Not applied to tiny models."""
MEMORY_BOUND = 1.1
"""Largest peak memory relative to the prediction, which counts attention without fused kernels."""
_WARM_UP, _STEPS = 3, 10


@attrs.frozen
class Model:
    """A model and its micro-batch."""

    name: str
    trunk: Trunk
    objective: Objective
    image_size: int
    batch_size: int

    def experiment(self, engine: Engine) -> Experiment:
        """Return an experiment that trains the model with ``engine``."""
        source = StandInSource()
        return Experiment(
            name="step",
            data=Data(train=source, validation=source, batch_size=self.batch_size, image_size=self.image_size),
            trunk=self.trunk,
            objective=self.objective,
            num_steps=1_000,
            optimizer=aim_optimizer(),
            engine=engine,
        )


def models(quick: bool) -> list[Model]:
    """Return AIM-0.6B and AIMv2-L at 224 px, or one tiny model."""
    if quick:
        tiny = ViT(width=32, depth=2, num_heads=2, patch_size=4)
        decoder = JointDecoder(width=32, depth=1, num_heads=2)
        return [Model("tiny AIMv2", tiny, Multimodal(decoder=decoder, context_length=8), 16, 4)]
    return [
        Model("AIM-0.6B", aim("0.6B"), NextPatch(head=MLPHead()), 224, 64),
        Model("AIMv2-L", aimv2("L"), Multimodal(decoder=JointDecoder()), 224, 64),
    ]


def step_rows(setting: Setting) -> Iterator[Row]:
    """Time per step of the engine, at two precisions, and of the plain loop."""
    peak = peak_flops(setting)
    yield Row("steps", "peak of bfloat16 products", Finding(True, f"{peak / 1e12:.3g} TFLOP/s", "", {"flops": peak}))
    for model in models(setting.quick):
        yield from _model_rows(model, setting, peak)


def _model_rows(model: Model, setting: Setting, peak: float) -> Iterator[Row]:
    label = f"{model.name}, batch {model.batch_size}"
    taken: dict[str, float] = {}
    costs: dict[Engine, Cost] = {}

    def measured(form: str, engine: Engine, run: Callable[[Experiment, Setting], tuple[float, float]]) -> Finding:
        release()
        experiment = model.experiment(engine)
        if engine not in costs:
            costs[engine] = cost_of(experiment)
        taken[form], memory = run(experiment, setting)
        return _finding(taken[form], memory, costs[engine], peak)

    threads = torch.get_num_threads()
    autocast = Engine(zero_stage=0, precision="autocast", num_threads=threads)
    for form, engine, run in (
        ("engine, autocast", autocast, _engine_steps),
        ("engine, bf16, stage 1", Engine(zero_stage=1, precision="bf16", num_threads=threads), _engine_steps),
        ("plain loop, autocast", autocast, _plain_steps),
    ):
        yield attempted(
            "steps", f"{label}: {form}", lambda form=form, engine=engine, run=run: measured(form, engine, run)
        )
    if len(taken) == 3:
        ratio = taken["engine, autocast"] / taken["plain loop, autocast"]
        bound = f"<= {OVERHEAD_BOUND}" if not setting.quick else ""
        is_right = setting.quick or ratio <= OVERHEAD_BOUND
        yield Row("steps", f"{label}: engine / plain loop", Finding(is_right, f"{ratio:.3f}", bound, {"ratio": ratio}))


def _finding(seconds: float, memory: float, cost: Cost, peak: float) -> Finding:
    flops = cost.flops_per_image * cost.micro_batch
    share = flops / seconds / peak
    numbers = {"seconds": seconds, "utilisation": share, "images_per_second": cost.micro_batch / seconds}
    text = f"{1e3 * seconds:.1f} ms, {cost.micro_batch / seconds:.0f} images/s, {share:.1%} of peak"
    if not memory:
        return Finding(True, text, numbers=numbers)
    numbers |= {"memory": memory, "predicted_memory": cost.memory}
    is_right = memory <= MEMORY_BOUND * cost.memory
    return Finding(
        is_right, f"{text}, {memory / 1e9:.1f} GB", f"memory <= {MEMORY_BOUND} x {cost.memory / 1e9:.1f} GB", numbers
    )


def _engine_steps(experiment: Experiment, setting: Setting) -> tuple[float, float]:
    with TrainingEngine(experiment) as engine:
        return _timed(lambda batch: engine.step([batch]), _batches(experiment), setting)


def _plain_steps(experiment: Experiment, setting: Setting) -> tuple[float, float]:
    module = build_module(experiment).to(setting.device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    return _timed(_plain_step(module, optimizer, setting.device), _batches(experiment), setting)


def _plain_step(
    module: ObjectiveModule, optimizer: torch.optim.Optimizer, device: torch.device
) -> Callable[[Batch], float]:
    """The loop that anyone would write: autocast, backward, clip, AdamW."""

    def step(batch: Batch) -> float:
        with torch.autocast(device.type, torch.bfloat16):
            losses = module(batch.to(device))
        total = torch.stack([loss.sum * loss.weight / loss.num_targets for loss in losses.values()]).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(total.detach())

    return step


def _batches(experiment: Experiment) -> list[Batch]:
    """Return the batches of all steps, made before the clock starts."""
    return [random_batch(experiment, number) for number in range(_WARM_UP + _STEPS)]


def _timed(step: Callable[[T], object], data: Sequence[T], setting: Setting) -> tuple[float, float]:
    """Return the median seconds of a step after the warm-up, and the peak memory in bytes (0 on a CPU)."""
    is_cuda, times = setting.device.type == "cuda", []
    for each in data[:_WARM_UP]:
        step(each)
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    for each in data[_WARM_UP:]:
        begun = time.perf_counter()
        step(each)
        if is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2], float(torch.cuda.max_memory_allocated()) if is_cuda else 0.0


def random_batch(experiment: Experiment, number: int) -> Batch:
    """Return the images of step ``number``, of normal noise, with captions of the full length."""
    size, patch_size = experiment.data.batch_size, experiment.trunk.patch_size
    side = experiment.data.image_size // patch_size
    generator = torch.Generator().manual_seed(number)
    text = None
    if experiment.objective.text is not None:
        tokenizer, length = experiment.objective.text
        ids_BT = torch.randint(tokenizer.vocabulary_size, (size, length), generator=generator)
        text = Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool))
    patches_BNF = torch.randn(size, side**2, patch_size**2 * 3, generator=generator)
    return Batch(
        images=Images(patches_BNF=patches_BNF, grids=(PatchGrid(side, side),) * size, patch_size=patch_size),
        sample_numbers_B=torch.arange(size) + size * number,
        text=text,
    )


def peak_flops(setting: Setting) -> float:
    """Return the best rate of bfloat16 matrix products on the device, in FLOP/s."""
    best = 0.0
    for size in (256,) if setting.quick else (4096, 8192):
        pair = tuple(torch.randn(size, size, device=setting.device).bfloat16() for _ in range(2))
        seconds, _ = _timed(lambda pair: pair[0] @ pair[1], [pair] * (_WARM_UP + _STEPS), setting)
        best = max(best, 2 * size**3 / seconds)
    return best


def release() -> None:
    """Free the memory of models that are not used any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
