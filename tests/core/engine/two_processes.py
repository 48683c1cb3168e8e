"""What two processes do, written to a file for test_two_processes.py. Run as by torchrun."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from core.engine.toys import SignallingTracker, StoppingTracker, ToySource, experiment, parts, whole_batch
from core.testing.mutants.targets import RandomCodes, Teacher
from safetensors.torch import save_file
from small_towers import image_tower, untrained
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from aimcore import (
    Batch,
    Branch,
    Data,
    Engine,
    Experiment,
    Objective,
    OpenSource,
    Schedule,
    Source,
    Tracker,
    TrackerRun,
    Trunk,
    Weights,
    component,
)
from aimcore.contracts.errors import AimcoreError, DataNotFound
from aimcore.contracts.images import images_of
from aimcore.engine import (
    CheckpointDamaged,
    NothingToBeginWith,
    TrainingEngine,
    build_module,
    checkpoints,
    read_metrics,
    train,
)
from aimcore.engine.distributed import on_every_rank, on_first_rank
from aimcore.engine.manifest import describe_files, read_manifest
from aimcore.registry.plugins import installed
from aimcore.testing.fixtures import as_float32, batch_for, part_of, random_images
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch, TransformersTowers
from aimcore_objectives.logit_scale import LogitScale
from aimcore_optimizers import AdamW
from aimcore_orderings import Spiral
from aimcore_trunks import ViT

NUM_STEPS = 20
LAYOUTS = [(0, 0), (0, 3), (2, 2), (2, 0), (2, 3), (3, 1), (3, 3)]
"""ZeRO stages of a run on one process, and of the run on two that continues it."""
BATCH = 8


def aim(accumulation_steps: int = 1) -> Experiment:
    """A small AIM with uniform prefixes, in float32."""
    return experiment(
        accumulation_steps=accumulation_steps,
        trunk=ViT(width=32, depth=2, num_heads=2, patch_size=4),
        objective=NextPatch(ordering=Spiral(), head=MLPHead(width=32, depth=1), prefix="uniform"),
        num_steps=NUM_STEPS,
    )


def aim_batch(step: int) -> Batch:
    """8 images of 16 patches."""
    pixels = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(step))
    return Batch(images=images_of(pixels, 4), sample_numbers_B=torch.arange(BATCH) + BATCH * step)


def cut(batch: Batch, num_parts: int) -> list[Batch]:
    """A batch in equal parts."""
    chunks = zip(batch.images.pixels_BCHW.chunk(num_parts), batch.sample_numbers_B.chunk(num_parts), strict=True)
    return [Batch(images=images_of(pixels, 4), sample_numbers_B=numbers) for pixels, numbers in chunks]


def aim_losses(rank: int, world_size: int, accumulation_steps: int = 1) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step of a rank."""
    with TrainingEngine(aim(accumulation_steps)) as engine:
        found = []
        for step in range(NUM_STEPS):
            mine = cut(aim_batch(step), world_size * accumulation_steps)[rank::world_size]
            result = engine.step(mine)
            found.append((result.losses["next_patch"], result.gradient_norm))
        return found


def installed_objectives() -> dict[str, Objective]:
    """Every example of every installed objective that aimcore brings, and those that need weights or a library."""
    with_weights = {
        f"next_patch.{target.name}": NextPatch(target=target, head=MLPHead(width=16, depth=1), prefix=None)
        for target in (RandomCodes(), Teacher())
    }
    towers = {f"transformers_towers.{family}": untrained(family) for family in ("clip", "siglip")}
    return {**with_weights, **towers} | {
        f"{cls.name}.{number}": example
        for _, cls in installed().registry("objectives").items()
        for number, example in enumerate(cls.examples())
        if isinstance(example, Objective)
    }


def objective_losses(objective: Objective, rank: int, world_size: int) -> list[tuple[dict[str, float], float]]:
    """Losses and gradient norms of 20 steps of any objective, from images, captions and labels."""
    trunk: Trunk = ViT(width=16, depth=2, num_heads=2, patch_size=4, mask_token="mask" in objective.requires)
    if isinstance(objective, TransformersTowers):
        trunk = image_tower(objective)
    settings = experiment(trunk=trunk, objective=objective, num_steps=NUM_STEPS)
    share, found = BATCH // world_size, []
    with TrainingEngine(settings) as engine:
        for step in range(NUM_STEPS):
            whole = batch_for(objective, random_images(number=BATCH, seed=step), seed=step)
            result = engine.step([as_float32(part_of(whole, rank * share, (rank + 1) * share))])
            found.append((dict(result.losses), result.gradient_norm))
    return found


def pull_on_a_temperature_at_its_bound(pull: float, gather: bool) -> float:
    """The gradient of a scale that stands a little above 100, which a rank's loss pulls at."""
    scale = LogitScale(math.log(100) + 1e-4, None, bounded=True)
    (scale(torch.ones(1), gather=gather) * pull).sum().backward()
    assert scale.log_scale.grad is not None
    return float(scale.log_scale.grad)


def pulls(rank: int) -> list[list[float]]:
    """What both ranks let pass, for each pair of pulls."""
    mine = [pull_on_a_temperature_at_its_bound(both[rank], gather=True) for both in ((3, -1), (1, -2), (-3, -1))]
    everyone: list[Any] = [None, None]
    torch.distributed.all_gather_object(everyone, mine)
    return [list(both) for both in zip(*everyone, strict=True)]


def toy_losses(stage: int, rank: int, world_size: int, accumulation_steps: int = 1) -> list[dict[str, float]]:
    """Both losses of the toy, whose numbers of targets differ between ranks."""
    with TrainingEngine(experiment(stage, accumulation_steps=accumulation_steps)) as engine:
        cuts = world_size * accumulation_steps
        return [dict(engine.step(parts(whole_batch(step), cuts)[rank::world_size]).losses) for step in range(6)]


def resumed(folder: Path, saved: int, stage: int) -> list[dict[str, float]]:
    """Losses after resuming from a checkpoint that one process saved at stage ``saved``; the run is saved again."""
    run = folder / f"resumed-{saved}-{stage}"
    with TrainingEngine(experiment(stage)) as engine:
        on_first_rank(lambda: shutil.copytree(folder / f"stage-{saved}", run))
        checkpoints.resume(engine, run)
        rank = engine.world.rank
        losses = [dict(engine.step(parts(whole_batch(step), 2)[rank::2]).losses) for step in (2, 3)]
        checkpoints.save(engine, run, seconds=0.0)
    return losses


def interrupted(folder: Path, rank: int) -> tuple[str, int, str, int]:
    """A run that is interrupted on rank 1 alone and resumed: how it ended each time."""
    with TrainingEngine(experiment(2)) as engine:
        ends = [engine.step(parts(whole_batch(0), 2, rank), lambda: rank == 1).interrupted]
    assert ends == [True]
    first = train(experiment(2, trackers=(SignallingTracker(step=1),)), folder / "interrupted", progress=False)
    first.engine.close()
    second = train(experiment(2), folder / "interrupted", resume=True, progress=False)
    second.engine.close()
    return first.status, first.num_steps, second.status, second.num_steps


def stopped(folder: Path) -> tuple[str, int]:
    """A run that a tracker of rank 0 stops after step 1: how it ended on this rank, and after how many steps."""
    result = train(experiment(3, trackers=(StoppingTracker(step=1),)), folder / "stopped", progress=False)
    result.engine.close()
    return result.status, result.num_steps


def branched(folder: Path, stage: int) -> tuple[list[Any], list[Any], str]:
    """Lines of a cooldown that left a long run, those of the same run from its beginning, and a refusal."""
    study, decoupled = folder / f"branched-{stage}", AdamW(decay="decoupled")
    long = Schedule(decay="linear")
    cooled = Schedule(decay="linear", decay_steps=6, cooldown_steps=2)
    runs = {
        "long": experiment(stage, name="long", optimizer=decoupled, schedule=long, checkpoint_every=2),
        "whole": experiment(stage, name="whole", optimizer=decoupled, schedule=cooled, num_steps=4),
        "branch": experiment(
            stage,
            name="branch",
            optimizer=decoupled,
            schedule=cooled,
            num_steps=4,
            branch=Branch(experiment="long", step=2),
        ),
    }
    for name, run in runs.items():
        train(run, study / name, progress=False, keep_steps=(2,)).engine.close()
    try:
        train(runs["branch"], study / "elsewhere" / "branch", progress=False)
    except NothingToBeginWith as error:
        refusal = str(error)
    torch.distributed.barrier()
    lines = {name: [(line["losses"], line["lr"]) for line in read_metrics(study / name)] for name in runs}
    return lines["branch"], lines["whole"][2:], refusal


def shared_errors(rank: int) -> list[str]:
    """What every rank raises where one alone fails, in many ways."""

    def fail(on: int, error: Exception) -> str:
        if rank == on:
            raise error
        return "no error"

    acts: list[Callable[[], str]] = [
        lambda: on_every_rank(lambda: fail(1, CheckpointDamaged("file", "is odd"))),
        lambda: on_every_rank(lambda: fail(1, KeyError("strange"))),
        lambda: on_every_rank(lambda: fail(0, UnpicklableError("a", "b"))),
        lambda: on_first_rank(lambda: fail(0, OSError(5, "Input/output error"))),
        lambda: on_every_rank(lambda: fail(2, KeyError())),
        lambda: on_first_rank(lambda: f"from rank {rank}"),
    ]
    return [error_of(act) for act in acts]


class UnpicklableError(AimcoreError):
    """An error of a plugin that did not think of other processes."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def error_of(act: Callable[[], Any]) -> str:
    """What ``act`` returns, or its error."""
    try:
        return str(act())
    except (ValueError, LookupError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def refused(folder: Path, stage: int, rank: int) -> list[str]:
    """How a checkpoint is refused that rank 1 alone cannot load, cannot save, and cannot be found whole by rank 0."""
    run, found = folder / f"refused-{stage}", []
    with TrainingEngine(experiment(stage)) as engine:
        for step in range(2):
            engine.step(parts(whole_batch(step), 2, rank))
            newest = checkpoints.save(engine, run, seconds=0.0)
    shard = newest / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    for change in (misshape, shard_away):
        if rank == 0:
            change(shard)
        torch.distributed.barrier()
        with TrainingEngine(experiment(stage)) as engine:
            found.append(error_of(lambda engine=engine: checkpoints.resume(engine, run)))
    if rank == 0:
        shutil.rmtree(newest)
    torch.distributed.barrier()
    with TrainingEngine(experiment(stage)) as engine:
        checkpoints.resume(engine, run)
        engine.step(parts(whole_batch(1), 2, rank))
        if rank == 1:
            engine._engine.checkpoint_engine.save = full_disk
        found.append(error_of(lambda: checkpoints.save(engine, run, seconds=0.0)))
    return [text.replace(str(folder), "") for text in found]


@component("elsewhere")
class Elsewhere(Source):
    """Images that one process does not find."""

    rank: int

    def open(self) -> OpenSource:
        if torch.distributed.get_rank() == self.rank:
            raise DataNotFound(f"process {self.rank} has no such folder")
        return ToySource().open()


@component("unreachable")
class Unreachable(Tracker):
    """A service that is down."""

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        raise ConnectionRefusedError(111, "Connection refused")


def not_begun(folder: Path, rank: int) -> list[str]:
    """What every rank raises where a run cannot begin on one of them: without weights, images or a tracker."""
    if rank == 0:
        save_file(build_module(experiment()).state_dict(), folder / "of-rank-0.safetensors")
    torch.distributed.barrier()
    images = Data(train=Elsewhere(rank=1), validation=ToySource(), batch_size=8, image_size=8)
    runs = [
        experiment(initial_weights=Weights(url=f"{folder}/of-rank-{rank}.safetensors")),
        experiment(data=images),
        experiment(trackers=(Unreachable(),)),
    ]
    number = iter(range(3))
    return [
        error_of(lambda run=run: train(run, folder / f"not-begun-{next(number)}", progress=False)).replace(
            str(folder), ""
        )
        for run in runs
    ]


def misshape(shard: Path) -> None:
    """Make tensors of the optimiser too short, in a sound pickle with the hash that the manifest gives."""
    content = torch.load(shard, weights_only=False)
    states = content["optimizer_state_dict"]
    name = "fp32_flat_groups" if "fp32_flat_groups" in states else "base_optimizer_state"
    states[name] = [torch.ones(3)] if name == "fp32_flat_groups" else None
    torch.save(content, shard)
    described = read_manifest(shard.parent)
    attrs.evolve(described, files={**described.files, shard.name: describe_files(shard.parent)[shard.name]}).write(
        shard.parent
    )


def shard_away(shard: Path) -> None:
    """Remove it."""
    shard.unlink()


def full_disk(*_: object, **__: object) -> None:
    """Write nothing."""
    raise OSError(28, "No space left on device")


def gathered(rank: int) -> bool:
    """Whether every rank of stage 3 gets the whole state."""
    with TrainingEngine(experiment(3)) as engine:
        engine.step(parts(whole_batch(0), 2, rank))
        state = engine.full_state_dict()
    totals = torch.stack([value.double().sum() for value in state.values()])
    others = [torch.zeros_like(totals) for _ in range(2)]
    torch.distributed.all_gather(others, totals)
    return torch.equal(others[0], others[1]) and state["trunk.embed.weight"].shape == (16, 48)


def shared_threads() -> int:
    """Threads of each process where the experiment does not say."""
    with TrainingEngine(experiment(engine=Engine(precision="fp32"))):
        return torch.get_num_threads()


def everything(folder: Path) -> dict[str, Any]:
    """All of it, on this rank."""
    with TrainingEngine(experiment()) as engine:
        rank = engine.world.rank
    return {
        "aim": aim_losses(rank, 2),
        "aim accumulated": aim_losses(rank, 2, accumulation_steps=2),
        "toy": [toy_losses(stage, rank, 2) for stage in range(4)],
        "toy accumulated": [toy_losses(stage, rank, 2, accumulation_steps=2) for stage in range(4)],
        "resumed": [resumed(folder, saved, stage) for saved, stage in LAYOUTS],
        "interrupted": interrupted(folder, rank),
        "stopped": stopped(folder),
        "branched": [branched(folder, stage) for stage in (0, 1)],
        "pulls": pulls(rank),
        "gathered": gathered(rank),
        "shared errors": shared_errors(rank),
        "not begun": not_begun(folder, rank),
        "refused": [refused(folder, stage, rank) for stage in (1, 3)],
        "threads": shared_threads(),
        "objectives": {name: objective_losses(one, rank, 2) for name, one in installed_objectives().items()},
    }


def write(folder: Path) -> None:
    """Write what this rank finds."""
    found = everything(folder)
    (folder / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    # As torchrun --standalone --nproc_per_node 2, which starts new interpreters instead of forks.
    launch = LaunchConfig(1, 1, 2, run_id="two", rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(launch, write)(Path(sys.argv[1]))
