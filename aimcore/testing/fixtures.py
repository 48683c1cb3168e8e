"""Fixtures of the checks: small random images, batches and features.

Everything is float64, so that rounding does not look like a dependence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Batch, Extra, Text, View
from aimcore.contracts.features import Features
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.objectives import Objective
from aimcore.testing.requirements import seeded

GRID = PatchGrid(3, 4)
"""Not a square, so that a mix-up of rows and columns shows."""
NUM_IMAGES = 3


def random_images(
    grid: PatchGrid = GRID, *, patch_size: int = 4, num_channels: int = 3, number: int = NUM_IMAGES, seed: int = 0
) -> Images:
    """Return ``number`` images of normal noise with the same grid."""
    generator = torch.Generator().manual_seed(seed)
    shape = (number, grid.num_patches, patch_size**2 * num_channels)
    patches_BNF = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Images(patches_BNF=patches_BNF, grids=(grid,) * number, patch_size=patch_size)


def batch_of(images: Images, views: Sequence[View] = (), extras: Sequence[Extra] = (), *, seed: int = 0) -> Batch:
    """Return a batch of ``images`` with alternating labels 0 and 1, random ``views`` (binary masks) and ``extras``."""
    generator = torch.Generator().manual_seed(seed)
    number, grid = len(images.grids), images.grid
    rendered = {}
    for view in views:
        shape = (number, *view.extent(grid, images.num_channels))
        pixels_BCHW = torch.rand(shape, generator=generator, dtype=torch.float64)
        rendered[view.key] = pixels_BCHW if view.of is None else pixels_BCHW.round().long()
    return Batch(
        images=images,
        sample_numbers_B=torch.arange(number),
        seed=seed,
        labels_B=torch.arange(number) % 2,
        views=rendered,
        extras={extra.key: _repeated(extra.example, number) for extra in extras},
    )


def _repeated(example: Any, number: int) -> Any:
    if not isinstance(example, Tensor):
        return (example,) * number
    repeated = torch.stack([example] * number)
    return repeated.double() if example.is_floating_point() else repeated


def batch_for(objective: Objective, images: Images, *, seed: int = 0) -> Batch:
    """Return a batch of ``images`` with the views, extras and text that ``objective`` reads."""
    batch = batch_of(images, objective.views, objective.extras, seed=seed)
    if objective.text is None:
        return batch
    tokenizer, context_length = objective.text
    texts = [f"{number} red shoes" for number in range(len(images.grids))]
    return attrs.evolve(batch, text=tokenizer.encode(texts, context_length))


def part_of(batch: Batch, first: int, last: int) -> Batch:
    """Return the samples ``first`` to ``last`` (excluded) of a batch, with their sample numbers."""
    part = slice(first, last)
    images = batch.images
    return attrs.evolve(
        batch,
        images=attrs.evolve(images, patches_BNF=images.patches_BNF[part].clone(), grids=images.grids[part]),
        sample_numbers_B=batch.sample_numbers_B[part].clone(),
        labels_B=None if batch.labels_B is None else batch.labels_B[part].clone(),
        views={key: view[part].clone() for key, view in batch.views.items()},
        extras={
            key: value[part].clone() if isinstance(value, Tensor) else value[part]
            for key, value in batch.extras.items()
        },
        text=None if batch.text is None else _mapped(batch.text, lambda tensor: tensor[part].clone()),
    )


def changed_patch(patches_BNF: Tensor, patch: int | slice, *, attempt: int = 0) -> Tensor:
    """Change one patch (or several) in every image, differently in each attempt."""
    changed = patches_BNF.clone()
    if attempt:
        generator = torch.Generator().manual_seed(attempt)
        noise_BF = torch.randn(changed[:, patch].shape, generator=generator, dtype=changed.dtype)
        changed[:, patch] = 2 * noise_BF
        return changed
    # Reversing and scaling changes a patch's mean, variance and shape, and thus every kind of target.
    changed[:, patch] = 2 * changed[:, patch].flip(-1) + 1
    return changed


def with_changed_patch(batch: Batch, patch: int, *, attempt: int = 0) -> Batch:
    """Change one patch in every image and view of a batch, differently in each attempt.

    A view without the proportions of the grid is a separate crop: all of its pixels change, because any of them may
    show the patch.
    """
    images, columns = batch.images, batch.images.grid.columns
    views = {}
    for key, view in batch.views.items():
        side, changed = _pixels_per_patch(view, images.grid), view.clone()
        top, left = patch // columns * (side or 0), patch % columns * (side or 0)
        pixels = changed if side is None else changed[..., top : top + side, left : left + side]
        generator = torch.Generator().manual_seed(attempt)
        if attempt and pixels.is_floating_point():
            # Noise and saturated colours in turn: what encodes textures may be blind to one of them.
            shape = pixels.shape if attempt % 2 else (*pixels.shape[:2], 1, 1)
            drawn = torch.rand(shape, generator=generator, dtype=pixels.dtype)
            pixels.copy_(drawn if attempt % 2 else drawn.round())
        else:
            pixels.copy_(1 - pixels)
        views[key] = changed
    patches_BNF = changed_patch(images.patches_BNF, patch, attempt=attempt)
    return attrs.evolve(batch, images=attrs.evolve(images, patches_BNF=patches_BNF), views=views)


def moved_patches(batch: Batch, *, seed: int = 0) -> tuple[Batch, Tensor]:
    """Add a random direction times a leaf ``[B, P]`` of zeros to every patch, in images and views; return both.

    A gradient in the leaf is a gradient in the patch, whether an objective reads it from images or views.
    """
    images, generator = batch.images, torch.Generator().manual_seed(seed)
    patches_BNF, grid = images.patches_BNF, images.grid
    moved_BP = patches_BNF.new_zeros(patches_BNF.shape[:2]).requires_grad_()
    views = {}
    for key, view in batch.views.items():
        side = _pixels_per_patch(view, grid)
        if not view.is_floating_point() or side is None:
            views[key] = view
            continue
        moved_B1RK = moved_BP.reshape(-1, 1, grid.rows, grid.columns)
        moved_BCHW = moved_B1RK.repeat_interleave(side, -2).repeat_interleave(side, -1)
        views[key] = view + moved_BCHW * torch.randn(view.shape, generator=generator, dtype=view.dtype)
    direction_BNF = torch.randn(patches_BNF.shape, generator=generator, dtype=patches_BNF.dtype)
    moved_BNF = patches_BNF + moved_BP.unsqueeze(-1) * direction_BNF
    return attrs.evolve(batch, images=attrs.evolve(images, patches_BNF=moved_BNF), views=views), moved_BP


def _pixels_per_patch(view_BCHW: Tensor, grid: PatchGrid) -> int | None:
    """The side of a patch in pixels of a view; None if the view does not show the grid."""
    side = view_BCHW.shape[-1] // grid.columns
    return side if side and view_BCHW.shape[-2:] == (grid.rows * side, grid.columns * side) else None


def _single(value: Any) -> Any:
    """Convert floating-point tensors to float32; return other values unchanged."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def stacked(batches: Sequence[Batch]) -> Batch:
    """Return one batch of all samples of several batches that have the same fields."""

    def joined(values: Sequence[Any]) -> Any:
        return torch.cat(list(values)) if isinstance(values[0], Tensor) else tuple(chain.from_iterable(values))

    first, texts = batches[0], [batch.text for batch in batches if batch.text is not None]
    images = attrs.evolve(
        first.images,
        patches_BNF=joined([batch.images.patches_BNF for batch in batches]),
        grids=joined([batch.images.grids for batch in batches]),
    )
    return attrs.evolve(
        first,
        images=images,
        sample_numbers_B=joined([batch.sample_numbers_B for batch in batches]),
        labels_B=None if first.labels_B is None else joined([batch.labels_B for batch in batches]),
        views={key: joined([batch.views[key] for batch in batches]) for key in first.views},
        extras={key: joined([batch.extras[key] for batch in batches]) for key in first.extras},
        text=_joined_texts(texts, joined) if texts else None,
    )


def _joined_texts(texts: Sequence[Text], joined: Callable[[Sequence[Any]], Any]) -> Text:
    given = [name for name, tensor in attrs.asdict(texts[0], recurse=False).items() if tensor is not None]
    return attrs.evolve(texts[0], **{name: joined([getattr(text, name) for text in texts]) for name in given})


def _mapped(text: Text, change: Callable[[Tensor], Tensor]) -> Text:
    tensors = attrs.asdict(text, recurse=False)
    changes = {name: change(tensor) for name, tensor in tensors.items() if tensor is not None}
    return attrs.evolve(text, **changes)


def copy_of(batch: Batch) -> Batch:
    """Return a copy of ``batch`` that shares no memory with it."""
    return part_of(batch, 0, len(batch.images.grids))


def on_meta(batch: Batch) -> Batch:
    """Move the pixels of a batch to the meta device, as float32, like a dry run; sample numbers and text stay."""
    images = batch.images
    return attrs.evolve(
        batch,
        images=attrs.evolve(images, patches_BNF=images.patches_BNF.float().to("meta")),
        labels_B=None if batch.labels_B is None else batch.labels_B.to("meta"),
        views={key: _single(view).to("meta") for key, view in batch.views.items()},
        extras={
            key: _single(value).to("meta") if isinstance(value, Tensor) else value
            for key, value in batch.extras.items()
        },
    )


def as_float32(batch: Batch) -> Batch:
    """Convert a batch to float32, as in training."""
    images = batch.images
    return attrs.evolve(
        batch,
        images=attrs.evolve(images, patches_BNF=images.patches_BNF.float()),
        views={key: _single(view) for key, view in batch.views.items()},
        extras={key: _single(value) for key, value in batch.extras.items()},
    )


def random_features(width: int, *, seed: int = 0) -> Features:
    """Return random features for :func:`random_images`, in raster order."""
    images = random_images(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_IMAGES, GRID.num_patches, width)
    tokens_BND = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Features(tokens_BND, images.positions_BN2, images.valid_BN)


@torch.no_grad()
def draw_nonzero(module: nn.Module) -> None:
    """Add noise to every weight: fresh weights may be zero (a gate, an output layer) and hide dependences."""
    with seeded():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.add_(torch.randn_like(parameter) * fan_in**-0.5)


def some_grids() -> Iterator[PatchGrid]:
    """Yield grids that break assumptions: one patch, a row, a column, squares, rectangles."""
    for rows, columns in ((1, 1), (1, 5), (4, 1), (2, 2), (3, 4), (5, 8), (7, 7), (8, 5), (16, 16)):
        yield PatchGrid(rows, columns)
