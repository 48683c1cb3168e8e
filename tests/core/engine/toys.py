"""A small trunk, objective, source and trackers: everything the engine must cope with, in a few hundred numbers.

Its two losses have different weights and different numbers of targets in every micro-batch, sometimes none; a learned
table does not decay, one parameter is frozen, and dropout draws at random.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aimcore import (
    Batch,
    Data,
    Engine,
    Experiment,
    Features,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    OpenSource,
    Reading,
    Sample,
    Source,
    Tracker,
    TrackerRun,
    Trunk,
    TrunkModule,
    component,
)
from aimcore.contracts.images import images_of

PATCH = 4
NUM_PATCHES = 4


@component("toy_trunk")
class ToyTrunk(Trunk):
    width: int = 16
    dropout: float = 0.0

    @property
    def patch_size(self) -> int:
        return PATCH

    def build(self) -> TrunkModule:
        return ToyTrunkModule(self.width, self.dropout)


class Table(nn.Module):
    no_weight_decay = frozenset({"places"})

    def __init__(self, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(NUM_PATCHES, width))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND + self.places


class ToyTrunkModule(TrunkModule):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width, self.depth, self.patch_size, self.num_channels = width, 1, PATCH, 3
        self.embed = nn.Linear(PATCH * PATCH * 3, width)
        self.frozen = nn.Linear(width, width)
        self.frozen.requires_grad_(False)
        self.table = Table(width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, images: Images, reading: Reading) -> Features:
        tokens_BND = self.table(self.frozen(self.embed(images.patches_BNF)) * self.scale)
        return Features(self.dropout(self.norm(tokens_BND)), images.positions_BN2, images.valid_BN)


@component("toy_objective")
class ToyObjective(Objective):
    poison: int | None = None
    """A sample number whose loss is not a number."""
    exploding: bool = False
    """Whether the loss is finite and its gradient not."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return ToyObjectiveModule(self, trunk)


class ToyObjectiveModule(ObjectiveModule):
    def __init__(self, config: ToyObjective, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = nn.Linear(trunk.width, 1)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {"all": batch.sample_numbers_B.numel() * NUM_PATCHES, "thirds": int(_thirds(batch).sum()) * NUM_PATCHES}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        predictions_BN = self.head(self.trunk(batch.images, Reading()).tokens_BND).squeeze(-1).float()
        loss_BN = (predictions_BN - batch.images.patches_BNF.square().mean(-1)).square()
        if self.config.poison is not None:
            is_sound_B = (batch.sample_numbers_B != self.config.poison).to(loss_BN.device)
            loss_BN = loss_BN.where(is_sound_B[:, None], torch.nan)
        total = loss_BN.sum()
        if self.config.exploding:
            total = total + (predictions_BN.sum() * 0).sqrt()
        thirds_B = _thirds(batch)
        return {
            "all": Loss(total, torch.tensor(loss_BN.numel())),
            "thirds": Loss(loss_BN[thirds_B].sum(), thirds_B.sum() * NUM_PATCHES, weight=0.5),
        }


def _thirds(batch: Batch) -> Tensor:
    return batch.sample_numbers_B % 3 == 0


@component("toy_source")
class ToySource(Source):
    size: int = 40

    def open(self) -> OpenSource:
        return OpenToySource(self.size)


class OpenToySource(OpenSource):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator)
        return Sample(image=image, identifier=f"toy-{index}")


@component("signalling")
class SignallingTracker(Tracker):
    """Sends its own process a signal once ``step`` is written down."""

    step: int
    signal_number: int = int(signal.SIGINT)

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return SignallingRun(self)


class SignallingRun(TrackerRun):
    def __init__(self, config: SignallingTracker) -> None:
        self.config = config

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.config.step:
            os.kill(os.getpid(), self.config.signal_number)

    def close(self, status: str) -> None:
        """Nothing is open."""


@component("stopping")
class StoppingTracker(Tracker):
    """Asks for a stop after ``step``, and writes down what it sees."""

    step: int

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return StoppingRun(self.step, Path(folder))


class StoppingRun(TrackerRun):
    def __init__(self, step: int, folder: Path) -> None:
        self.step = step
        self.folder = folder

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write(f"log {step}")

    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        self._write(f"see {step} {metrics['loss/all']!r}")
        return step == self.step

    def close(self, status: str) -> None:
        self._write(status)

    def _write(self, line: str) -> None:
        with (self.folder / "seen.txt").open("a") as file:
            file.write(f"{line}\n")


def experiment(
    stage: int = 0, precision: str = "fp32", *, accumulation_steps: int = 1, batch_size: int = 8, **changes: Any
) -> Experiment:
    """A run of 6 steps of 8 images, on one thread; ``changes`` are fields of Experiment."""
    source = ToySource()
    settings: dict[str, Any] = {
        "name": "toy",
        "data": Data(train=source, validation=source, batch_size=batch_size, image_size=8),
        "trunk": ToyTrunk(),
        "objective": ToyObjective(),
        "num_steps": 6,
        "engine": Engine(zero_stage=stage, precision=precision, accumulation_steps=accumulation_steps, num_threads=1),
    }
    return Experiment(**{**settings, **changes})


def whole_batch(step: int, batch_size: int = 8) -> Batch:
    """The batch of a step: random pixels."""
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randn(batch_size, 3, 8, 8, generator=generator)
    return Batch(images=images_of(pixels, PATCH), sample_numbers_B=torch.arange(batch_size) + step * batch_size)


def parts(batch: Batch, num_parts: int, part: int | None = None) -> list[Batch]:
    """A batch cut into equal parts, or one of them."""
    pixels, numbers = batch.images.pixels_BCHW.chunk(num_parts), batch.sample_numbers_B.chunk(num_parts)
    cut = [Batch(images=images_of(own, PATCH), sample_numbers_B=few) for own, few in zip(pixels, numbers, strict=True)]
    return cut if part is None else [cut[part]]
