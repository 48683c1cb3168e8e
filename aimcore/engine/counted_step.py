"""One step on the meta device: its FLOPs, and the bytes that it holds for the backward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.meta_autocast import MetaAutocast
from aimcore.experiment import Experiment

NUM_IMAGES = 256
"""Number of images in the counted step: large enough that random prefix lengths are near their mean."""


class CountedStep(NamedTuple):
    """The counts of one step on ``NUM_IMAGES`` images."""

    forward: int
    """FLOPs of the forward pass."""
    step: int
    """FLOPs of the forward and backward pass."""
    saved_bytes: int
    """Bytes that are held for the backward pass, without parameters and buffers."""


class HeldBytes(NamedTuple):
    """Bytes that a forward pass holds for the backward pass, without parameters and buffers."""

    per_image: int
    fixed: int
    """Bytes that do not depend on the number of images: under autocast, weights that were cast to bfloat16."""


def counted_step(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid) -> CountedStep:
    """Run one step of ``module``, which must be on the meta device, on images of ``grid``, and count."""
    saved = _SavedBytes(module)
    with FlopCounterMode(display=False) as counter:
        with saved:
            loss = _loss(experiment, module, grid, NUM_IMAGES)
        forward = counter.get_total_flops()
        loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    return CountedStep(forward, counter.get_total_flops(), saved.number)


def held_bytes(
    experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, many: int | None = None, *, fused: bool = False
) -> HeldBytes:
    """Return the bytes held for the backward pass, from two batches of different sizes.

    Args:
        experiment: the experiment.
        module: its module on the meta device.
        grid: the grid of the images.
        many: the bytes of ``NUM_IMAGES`` images, if they are known from :func:`counted_step`.
        fused: whether attention is computed by a kernel that does not hold probabilities, as on GPUs.
    """
    few = _held(experiment, module, grid, NUM_IMAGES // 2, fused=fused)
    if many is None:
        many = _held(experiment, module, grid, NUM_IMAGES, fused=fused)
    return HeldBytes((many - few) // (NUM_IMAGES - NUM_IMAGES // 2), max(0, 2 * few - many))


def _held(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, num_images: int, *, fused: bool) -> int:
    saved = _SavedBytes(module)
    with saved:
        _loss(experiment, module, grid, num_images, fused=fused)
    return saved.number


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes of the tensors on the meta device that a forward pass holds for the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        kept = [*module.parameters(), *module.buffers()]
        self._of_module = {tensor.untyped_storage()._cdata for tensor in kept}
        self._storages: dict[int, torch.UntypedStorage] = {}

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # While the storage is held, its address is not reused.
        self._storages[storage._cdata] = storage
        return tensor

    @property
    def number(self) -> int:
        """Number of bytes; each storage counts once."""
        counted = (storage for address, storage in self._storages.items() if address not in self._of_module)
        return sum(storage.nbytes() for storage in counted if storage.device.type == "meta")


def _loss(
    experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, num_images: int, *, fused: bool = False
) -> Tensor:
    batch = meta_batch(experiment, grid, num_images, module.trunk.num_channels)
    with MetaAutocast(enabled=experiment.engine.precision != "fp32", fused_attention=fused):
        losses = module(batch)
    return torch.stack([loss.sum.float() for loss in losses.values()]).sum()


def meta_batch(experiment: Experiment, grid: PatchGrid, num_images: int, num_channels: int) -> Batch:
    """Build a batch of images without pixels; sample numbers are real, because prefixes and masks depend on them."""
    patch_size = experiment.trunk.patch_size
    patches_BNF = torch.empty(num_images, grid.num_patches, patch_size**2 * num_channels, device="meta")
    views = {
        view.key: torch.empty(
            num_images,
            *view.extent(grid, num_channels),
            device="meta",
            dtype=torch.float32 if view.of is None else torch.int64,
        )
        for view in experiment.objective.views
    }
    return Batch(
        images=Images(patches_BNF=patches_BNF, grids=(grid,) * num_images, patch_size=patch_size),
        sample_numbers_B=torch.arange(num_images),
        seed=experiment.seed,
        labels_B=torch.zeros(num_images, dtype=torch.int64, device="meta"),
        views=views,
        extras={extra.key: _repeated(extra.example, num_images) for extra in experiment.objective.extras},
        text=_full_text(experiment, num_images),
    )


def _repeated(example: object, number: int) -> object:
    """Return an extra for a whole batch, on the meta device."""
    if isinstance(example, Tensor):
        return torch.empty(number, *example.shape, dtype=example.dtype, device="meta")
    return (example,) * number


def _full_text(experiment: Experiment, num_images: int) -> Text | None:
    """Return captions of the full context length; the length of real captions depends on the data."""
    if experiment.objective.text is None:
        return None
    ids_BT = torch.zeros(num_images, experiment.objective.text[1], dtype=torch.int64)
    return Text(ids_BT=ids_BT, valid_BT=torch.ones_like(ids_BT, dtype=torch.bool))
