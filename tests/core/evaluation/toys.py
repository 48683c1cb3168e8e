"""Small parts whose outputs can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aimcore import (
    Batch,
    Capability,
    Data,
    Experiment,
    Features,
    FittedProbe,
    Images,
    LabelledFeatures,
    Loss,
    Objective,
    ObjectiveModule,
    OpenSource,
    Ordering,
    PatchGrid,
    Probe,
    Reading,
    Sample,
    Source,
    Trunk,
    TrunkModule,
    component,
)
from aimcore.contracts.images import reorder
from aimcore.contracts.randomness import EVALUATION_SEED


class ToyTrunkModule(TrunkModule):
    """Block i puts out (i + 1) * scale * patches; the final output is minus the patches."""

    def __init__(self, scale: float = 1.0, patch_size: int = 2, num_channels: int = 3) -> None:
        super().__init__()
        self.width, self.depth = patch_size**2 * num_channels, 3
        self.patch_size, self.num_channels = patch_size, num_channels
        self.scale = nn.Parameter(torch.tensor(scale))
        self.readings: list[tuple[Reading, bool, bool]] = []

    def forward(self, images: Images, reading: Reading) -> Features:
        self.readings.append((reading, self.training, torch.is_grad_enabled()))
        patches_BNF = reorder(images.patches_BNF, reading.order_BN) * self.scale
        return Features(
            -patches_BNF,
            reorder(images.positions_BN2, reading.order_BN),
            reorder(images.valid_BN, reading.order_BN),
            tuple((layer + 1) * patches_BNF for layer in reading.layers),
        )


@component("toy_trunk")
class ToyTrunk(Trunk):
    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"causal", "order"})

    @property
    def patch_size(self) -> int:
        return 2

    def build(self) -> TrunkModule:
        return ToyTrunkModule()


@component("backwards")
class Backwards(Ordering):
    def permutation(self, grid: PatchGrid) -> Tensor:
        return torch.arange(grid.num_patches).flip(0)


class ToyModule(ObjectiveModule):
    """The loss of a patch is its first value; scored are the steps in ``extras["scored"]`` (per image)."""

    def __init__(self, trunk: TrunkModule | None = None) -> None:
        super().__init__()
        self.trunk = trunk or ToyTrunkModule(patch_size=1, num_channels=1)
        self.frozen_part = nn.Dropout().eval()
        self.seen: list[tuple[bool, bool]] = []

    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {"toy": int(batch.extras["scored"].sum())}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        self.seen.append((self.training, torch.is_grad_enabled()))
        values_BN, scored_BN = batch.images.patches_BNF[..., 0], batch.extras["scored"]
        return {
            "toy": Loss(
                values_BN[scored_BN].sum(),
                scored_BN.sum(),
                weight=0.5,
                per_position_BN=torch.where(scored_BN, values_BN, torch.nan),
            )
        }


@component("toy_objective")
class ToyObjective(Objective):
    ordering: Ordering = Backwards()

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return ToyModule(trunk)

    def probe_reading(self, batch: Batch) -> Reading:
        return Reading(order_BN=self.ordering.orders(batch.images, batch.sample_numbers_B, EVALUATION_SEED))


def sequences(values: list[list[float]], scored: list[list[bool]], first_number: int = 0) -> Batch:
    """A batch of one-value patches in a row."""
    values_BN = torch.tensor(values)
    grid = PatchGrid(1, values_BN.shape[1])
    return Batch(
        images=Images(patches_BNF=values_BN[..., None], grids=(grid,) * len(values_BN), patch_size=1),
        sample_numbers_B=torch.arange(first_number, first_number + len(values_BN)),
        extras={"scored": torch.tensor(scored)},
    )


class OpenShades(OpenSource):
    """4 x 4 images that are dark (class 0) or light (class 1) in turn, each a little differently."""

    def __init__(self, length: int, labelled: bool, class_names: tuple[str, ...]) -> None:
        self.length, self.labelled, self.class_names = length, labelled, class_names

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> Sample:
        label = index % 2
        shade = 30 + 180 * label + index % 17
        image = torch.full((3, 4, 4), shade, dtype=torch.uint8)
        return Sample(image=image, identifier=str(index), label=label if self.labelled else None)


@component("shades")
class Shades(Source):
    length: int = 40
    labelled: bool = True
    class_names: tuple[str, ...] = ("dark", "light")

    def open(self) -> OpenSource:
        return OpenShades(self.length, self.labelled, self.class_names)


class FittedNearest(FittedProbe):
    def __init__(self, centers_CD: Tensor, choice: Mapping[str, Any]) -> None:
        self.centers_CD, self.choice = centers_CD, choice

    def predict(self, features: Tensor) -> Tensor:
        return torch.cdist(features, self.centers_CD).argmin(1)


@component("nearest", paper="a paper")
class Nearest(Probe):
    """The class of the nearest class centre; it counts how often it is fitted."""

    layers: tuple[int, ...] = (1, 2)
    fits: ClassVar[list[tuple[int, int]]] = []

    def layers_of(self, depth: int) -> tuple[int, ...]:
        return self.layers

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        self.fits.append((len(train.labels), len(held_out.labels)))
        centers = [train.features[train.labels == label].mean(0) for label in range(train.num_classes)]
        return FittedNearest(torch.stack(centers), {"seed": seed})


def experiment(name: str = "toy", probes: tuple[Probe, ...] = (Nearest(),), **data: Source) -> Experiment:
    sources: dict[str, Source] = {"train": Shades(), "validation": Shades(length=10), **data}
    return Experiment(
        name=name,
        data=Data(**sources, batch_size=4, image_size=4, eval_crop=1.0),  # type: ignore[arg-type]
        trunk=ToyTrunk(),
        objective=ToyObjective(),
        num_steps=1,
        probes=probes,
    )
