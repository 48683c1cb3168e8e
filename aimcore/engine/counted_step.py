"""One step on the meta device: its FLOPs, and the bytes that it holds for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
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


class CountedStep(NamedTuple):
    """The counts of one step on ``NUM_IMAGES`` images."""

    forward: int
    """FLOPs of the forward pass."""
    step: int
    """FLOPs of the forward and backward pass, without recomputation."""
    recomputed: int
    """FLOPs that the backward pass makes a second time."""
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
    with FlopCounterMode(display=False) as counter, _autocast(experiment):
        with saved:
            loss = _loss(experiment, module, grid, NUM_IMAGES)
        forward = counter.get_total_flops()
        # Tensor.backward would leave the mode, and recomputation would have other types than the forward pass.
        with _Recomputation(counter) as recomputation:
            torch.autograd.backward(loss)
    module.zero_grad(set_to_none=True)
    step = counter.get_total_flops() - recomputation.flops
    return CountedStep(forward, step, recomputation.flops, saved.number)


def held_bytes(
    experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, many: int | None = None, *, fused: bool = False
) -> HeldBytes:
    """Return the bytes held for the backward pass, from two batches of different sizes.

    Args:
        experiment: the experiment.
        module: its module on the meta device, whose blocks hold their activations.
        grid: the grid of the images.
        many: the bytes of ``NUM_IMAGES`` images, if they are known from :func:`counted_step`.
        fused: whether attention is computed by a kernel that does not hold probabilities, as on GPUs.
    """
    few = _held(experiment, module, grid, NUM_IMAGES // 2, fused=fused)
    if many is None:
        many = _held(experiment, module, grid, NUM_IMAGES, fused=fused)
    return HeldBytes((many - few) // (NUM_IMAGES - NUM_IMAGES // 2), max(0, 2 * few - many))


def _held(experiment: Experiment, module: ObjectiveModule, grid: PatchGrid, num_images: int, *, fused: bool) -> int:
    """Return bytes held; with recomputation, those outside of blocks, the blocks' inputs, and those of one block."""
    outside, inputs, within = _SavedBytes(module), _SavedBytes(module), []
    with ExitStack() as stack:
        if experiment.engine.checkpoint_activations:
            for block in blocks_of(module):
                within.append(_SavedBytes(module, inputs))
                stack.enter_context(_counting_apart(block, inputs, within[-1]))
        with outside, _autocast(experiment, fused=fused):
            _loss(experiment, module, grid, num_images)
    of_inputs = outside.joined(inputs)
    return of_inputs + max((block.number for block in within), default=0)


@contextmanager
def _counting_apart(block: nn.Module, inputs: _SavedBytes, within: _SavedBytes) -> Iterator[None]:
    """Count the inputs of a block, and what its forward holds, apart from the rest."""

    def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        for tensor in tree_leaves((given, named)):
            if isinstance(tensor, Tensor):
                inputs.keep(tensor)
        within.__enter__()

    def leave(*_: Any) -> None:
        within.__exit__(None, None, None)

    handles = block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes of the tensors on the meta device that a forward pass holds for the backward pass.

    Args:
        module: its parameters and buffers are not counted.
        others: neither is what these have counted.
    """

    def __init__(self, module: nn.Module, *others: _SavedBytes) -> None:
        super().__init__(self.keep, lambda tensor: tensor)
        kept = [*module.parameters(), *module.buffers()]
        self._of_module = {tensor.untyped_storage()._cdata for tensor in kept}
        self._others = others
        self._storages: dict[int, torch.UntypedStorage] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor."""
        storage = tensor.untyped_storage()
        # While the storage is held, its address is not reused.
        self._storages[storage._cdata] = storage
        return tensor

    @property
    def number(self) -> int:
        """Number of bytes; each storage counts once."""
        left_out = self._of_module.union(*(other._storages for other in self._others))
        counted = (storage for address, storage in self._storages.items() if address not in left_out)
        return sum(storage.nbytes() for storage in counted if storage.device.type == "meta")

    def joined(self, other: _SavedBytes) -> int:
        """Return the number of bytes of both; each storage counts once."""
        both = _SavedBytes.__new__(_SavedBytes)
        both._of_module, both._others = self._of_module, ()
        both._storages = self._storages | other._storages
        return both.number


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
