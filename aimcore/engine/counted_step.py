"""One step on the meta device: its FLOPs, and the bytes that it holds for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.meta_autocast import MetaAutocast
from aimcore.engine.recomputation import blocks_of
from aimcore.experiment import Experiment

NUM_IMAGES = 256
"""Number of images in the counted step: large enough that random prefix lengths are near their mean."""


class Held(NamedTuple):
    """Bytes that a forward pass holds for the backward pass, without parameters and buffers."""

    all: int
    """With recomputation: what is held outside of blocks, the inputs of blocks, and what one block holds."""
    block: int
    """Bytes that the block with the most holds."""


class CountedStep(NamedTuple):
    """The counts of one step on ``NUM_IMAGES`` images."""

    forward: int
    """FLOPs of the forward pass."""
    step: int
    """FLOPs of the forward and backward pass, without recomputation."""
    recomputed: int
    """FLOPs that the backward pass makes a second time."""
    held: Held


class HeldBytes(NamedTuple):
    """Bytes that a forward pass holds for the backward pass, without parameters and buffers."""

    per_image: int
    block_per_image: int
    """Those of the block with the most."""
    fixed: int
    """Bytes that do not depend on the number of images: under autocast, weights that were cast to bfloat16."""


def counted_step(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid) -> CountedStep:
    """Run one step of ``module``, which must be on the meta device, on images of ``grid``, and count."""
    counting = _HeldCounter(module, recomputes=False)
    with FlopCounterMode(display=False) as counter, _autocast(experiment):
        with counting:
            loss = _loss(experiment, module, grid, NUM_IMAGES)
        forward = counter.get_total_flops()
        # With a tensor, torch would leave the mode, and recomputation would have other types than the forward pass.
        with _Recomputation(counter) as recomputation:
            torch.autograd.backward(get_gradient_edge(loss))
    module.zero_grad(set_to_none=True)
    step = counter.get_total_flops() - recomputation.flops
    return CountedStep(forward, step, recomputation.flops, counting.held)


def held_bytes(
    experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, many: Held | None = None, *, fused: bool = False
) -> HeldBytes:
    """Return the bytes held for the backward pass, from two batches of different sizes.

    Args:
        experiment: the experiment.
        module: its module on the meta device, before its blocks recompute their activations.
        grid: the grid of the images.
        many: those of ``NUM_IMAGES`` images, if they are known from :func:`counted_step`.
        fused: whether attention is computed by a kernel that does not hold probabilities, as on GPUs.
    """
    few = _held(experiment, module, grid, NUM_IMAGES // 2, fused=fused)
    if many is None:
        many = _held(experiment, module, grid, NUM_IMAGES, fused=fused)
    more = NUM_IMAGES - NUM_IMAGES // 2
    per_image, of_block = (many.all - few.all) // more, (many.block - few.block) // more
    return HeldBytes(per_image, of_block, max(0, 2 * few.all - many.all))


def _held(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, num_images: int, *, fused: bool) -> Held:
    counting = _HeldCounter(module, recomputes=experiment.engine.checkpoint_activations)
    with _autocast(experiment, fused=fused), counting:
        _loss(experiment, module, grid, num_images)
    return counting.held


class _HeldCounter:
    """A context that counts what a forward pass in it holds for the backward pass, blocks apart from the rest."""

    def __init__(self, module: ObjectiveModule, *, recomputes: bool) -> None:
        own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
        self._own, self._recomputes = own, recomputes
        self._outside, self._inputs = _Saved(), _Saved()
        self._blocks = {block: _Saved() for block in blocks_of(module)}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for block in self._blocks:
            self._handles.append(block.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(block.register_forward_hook(self._leave))
        self._outside.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._outside.__exit__()
        for handle in self._handles:
            handle.remove()

    def _enter(self, block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        for tensor in tree_leaves((given, named)):
            if isinstance(tensor, Tensor):
                self._inputs.keep(tensor)
        self._blocks[block].__enter__()

    def _leave(self, block: nn.Module, *_: Any) -> None:
        self._blocks[block].__exit__()

    @property
    def held(self) -> Held:
        """What was counted; each storage counts once."""
        inputs = self._inputs.storages.keys()
        within = [_bytes([saved], self._own | inputs) for saved in self._blocks.values()]
        block = max(within, default=0)
        if self._recomputes:
            return Held(_bytes([self._outside, self._inputs], self._own) + block, block)
        return Held(_bytes([self._outside, *self._blocks.values()], self._own), block)


class _Saved(torch.autograd.graph.saved_tensors_hooks):
    """A context that notes the storages of the tensors that autograd saves."""

    def __init__(self) -> None:
        super().__init__(self.keep, lambda tensor: tensor)
        self.storages: dict[int, torch.UntypedStorage] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor."""
        storage = tensor.untyped_storage()
        # While the storage is held, its address is not reused.
        self.storages[storage._cdata] = storage
        return tensor


def _bytes(saved: Iterable[_Saved], left_out: Set[int]) -> int:
    """Return the bytes of all storages on the meta device; each counts once."""
    storages = {address: storage for one in saved for address, storage in one.storages.items()}
    counted = (storage for address, storage in storages.items() if address not in left_out)
    return sum(storage.nbytes() for storage in counted if storage.device.type == "meta")


class _Recomputation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of the backward pass that are recomputation: only there, gradients are recorded."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counter = counter
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        if torch.is_grad_enabled():
            self.flops += self._counter.get_total_flops() - before
        return result


def _autocast(experiment: Experiment, *, fused: bool = False) -> MetaAutocast:
    return MetaAutocast(enabled=experiment.engine.precision != "fp32", fused_attention=fused)


def _loss(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, num_images: int) -> Tensor:
    losses = module(meta_batch(experiment, grid, num_images, module.trunk.num_channels))
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
