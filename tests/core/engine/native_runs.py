"""Short runs at native resolution; run by torchrun, it writes to a file what each of two processes found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from core.engine.two_processes import installed_objectives

from aimcore import Batch, Data, Engine, Experiment, NativeResolution, Objective, OpenSource, Sample, Source, component
from aimcore.data import train_steps
from aimcore.engine import read_metrics, train
from aimcore_heads import LinearHead, TransformerHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Checkerboard, Spiral
from aimcore_trunks import ViT

Padding = Literal["image", "masked"]
PADDINGS: tuple[Padding, ...] = ("image", "masked")
SIZES = [(16, 12), (8, 24), (10, 10), (3, 40), (30, 7)]


@component("shapes")
class Shapes(Source):
    """Noise of many aspect ratios, with captions and labels."""

    def open(self) -> OpenSource:
        return OpenShapes()


class OpenShapes(OpenSource):
    class_names = ("zero", "one", "two")

    def __len__(self) -> int:
        return 30

    def read(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        picture = torch.randint(0, 256, (3, *SIZES[index % 5]), dtype=torch.uint8, generator=generator)
        captions = {"alt": (f"{index} red", f"{index} or so")}
        return Sample(image=picture, identifier=str(index), captions=captions, label=index % 3)


def objectives() -> dict[str, Objective]:
    """Every example of every installed objective without views that mixes grids, and other orders than raster."""
    head = TransformerHead(width=16, depth=1, num_heads=2)
    others: dict[str, Objective] = {
        "spiral": NextPatch(ordering=Spiral(), head=head),
        "checkerboard": NextPatch(ordering=Checkerboard(), head=LinearHead(), prefix=None),
    }
    native = {name: one for name, one in installed_objectives().items() if not one.views and one.mixed_grids}
    return native | others


def native(objective: Objective, padding: Padding, **changes: Any) -> Experiment:
    """Four steps of 4 to 16 images of 8 to 32 patches."""
    resolution = NativeResolution(patches_per_step=128, log2_area=(3, 5), images_multiple_of=4, padding=padding)
    settings: dict[str, Any] = {
        "name": "native",
        "data": Data(train=Shapes(), validation=Shapes(), batch_size=1, image_size=16, native=resolution),
        "trunk": ViT(width=16, depth=2, num_heads=2, patch_size=4, mask_token="mask" in objective.requires),
        "objective": objective,
        "num_steps": 4,
        "engine": Engine(precision="fp32", num_threads=1),
    }
    return Experiment(**{**settings, **changes})


def lines(experiment: Experiment, folder: Path, *, resume: bool = False) -> list[dict[str, Any]]:
    """What the run wrote down of each step, without times."""
    train(experiment, folder, resume=resume, progress=False).engine.close()
    timed = {"patches_per_second", "data_seconds", "seconds", "peak_memory"}
    return [{key: value for key, value in line.items() if key not in timed} for line in read_metrics(folder)]


def batches(rank: int, world_size: int) -> list[Batch]:
    """What a rank reads in twelve steps."""
    data = native(NextPatch(head=LinearHead()), "image").data
    steps = train_steps(data, data.train.open(), patch_size=4, seed=0, num_steps=12, rank=rank, world_size=world_size)
    return [batch for (batch,) in steps]


def everything(folder: Path) -> dict[str, Any]:
    """Every objective with both ways to pad, and what this rank reads."""
    runs = {
        f"{name} {padding}": lines(native(objective, padding), folder / f"{name}-{padding}")
        for name, objective in objectives().items()
        for padding in PADDINGS
    }
    rank = torch.distributed.get_rank()
    read = [(list(batch.images.patches_BNF.shape), batch.sample_numbers_B.tolist()) for batch in batches(rank, 2)]
    return {"runs": runs, "read": read}


if __name__ == "__main__":
    found = everything(Path(sys.argv[1]))
    (Path(sys.argv[1]) / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
