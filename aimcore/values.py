"""The values that flow through a run, one way: Sample -> Batch -> Features -> Loss.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import attrs
import torch
from torch import Tensor


@attrs.frozen(order=True)
class PatchGrid:
    """A rectangle of patches: ``rows`` x ``columns``. Raster index of a patch = row * columns + column."""

    rows: int
    """From top to bottom."""
    columns: int
    """From left to right."""

    @property
    def num_patches(self) -> int:
        """Number of patches in the grid."""
        return self.rows * self.columns


@attrs.frozen(eq=False)
class Images:
    """A batch of images as packed patches in raster order, one grid per image.

    ``patches_BNF`` is padded with zeros behind each image's own patches where the grids are smaller. The values
    of a patch are flattened in the order (row in patch, column in patch, channel).
    """

    patches_BNF: Tensor
    """Pixels, normalised."""
    grids: tuple[PatchGrid, ...]
    """One per image."""
    patch_size: int
    """Side of a patch in pixels."""
    padding_is_image: bool = False
    """Whether the patches behind an image's own are part of it (arXiv:2411.14402, section 2.4): ordinary patches, whose
    places go on row after row. Otherwise they are padding: invalid, seen by nobody, never predicted."""
    sizes: tuple[tuple[int, int], ...] | None = None
    """(height, width) of each image in its grid, in pixels, where zeros fill the grid up at its right and bottom edges;
    None where all grids are full."""

    @property
    def num_channels(self) -> int:
        """Colour channels, from the length of a patch."""
        return int(self.patches_BNF.shape[2]) // self.patch_size**2

    @property
    def is_uniform(self) -> bool:
        """Whether all images have the same grid."""
        return len(set(self.grids)) <= 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of patches of each image, without what is masked as padding."""
        if self.padding_is_image:
            return (self.patches_BNF.shape[1],) * len(self.grids)
        return tuple(grid.num_patches for grid in self.grids)

    @property
    def is_padded(self) -> bool:
        """Whether some image has padding that must be masked."""
        return min(self.lengths, default=0) < self.patches_BNF.shape[1]

    @property
    def padding_share(self) -> float:
        """Share of the values that are zeros filled in: at the edges of images, and as whole patches behind them."""
        side = self.patch_size
        sizes = self.sizes or tuple((grid.rows * side, grid.columns * side) for grid in self.grids)
        return 1 - sum(height * width for height, width in sizes) / (self.patches_BNF[..., 0].numel() * side**2)

    @property
    def grid(self) -> PatchGrid:
        """The one grid of a uniform batch.

        Raises:
            ValueError: the grids differ.
        """
        if not self.is_uniform:
            raise ValueError(f"images of different grids: {sorted(set(self.grids))}; use .grids, one per image")
        return self.grids[0]

    @cached_property
    def valid_BN(self) -> Tensor:
        """True where a patch of an image stands, False on padding (in raster order)."""
        lengths_B = torch.tensor(self.lengths)
        steps_N = torch.arange(self.patches_BNF.shape[1])
        return (steps_N < lengths_B[:, None]).to(self.patches_BNF.device)

    @cached_property
    def places_BN2(self) -> Tensor:
        """(row, column) of every patch in raster order; -1 on padding."""
        length = self.patches_BNF.shape[1]
        if self.is_uniform:
            places_N2 = _places(self.grid, length, self.lengths[0]).to(self.patches_BNF.device)
            return places_N2.expand(len(self.grids), -1, -1)
        places = [_places(grid, length, own) for grid, own in zip(self.grids, self.lengths, strict=True)]
        return torch.stack(places).to(self.patches_BNF.device)

    @cached_property
    def pixels_BCHW(self) -> Tensor:
        """The pixels again, without patches behind the grid.

        Raises:
            ValueError: the grids differ, so that no one height and width exists.
        """
        from aimcore.patches import unpatchify

        return unpatchify(self.patches_BNF[:, : self.grid.num_patches], self.grid, self.patch_size)

    def to(self, device: torch.device) -> Images:
        """The same images on ``device``."""
        return attrs.evolve(self, patches_BNF=self.patches_BNF.to(device, non_blocking=True))


def _places(grid: PatchGrid, length: int, own: int) -> Tensor:
    index_N = torch.arange(length)
    places_N2 = torch.stack([index_N // grid.columns, index_N % grid.columns], dim=1)
    places_N2[own:] = -1
    return places_N2


@attrs.frozen(eq=False)
class Text:
    """A batch of token ids, padded at the end.

    ``masked_BT`` marks tokens replaced by the mask token (CapPa's parallel mode); ``prefix_length_B`` the number of
    leading tokens that all may see.
    """

    ids_BT: Tensor
    """Token ids."""
    valid_BT: Tensor
    """True for the tokens that are scored, False on padding."""
    masked_BT: Tensor | None = None
    """True where the mask token is read instead."""
    prefix_length_B: Tensor | None = None
    """Leading tokens that all may see."""


@attrs.frozen(eq=False)
class Sample:
    """One example of a source: an image ``uint8 [C, H, W]`` with whatever is known about it."""

    image: Tensor
    """``uint8 [C, H, W]``, 1 to 4 channels, on the CPU."""
    identifier: str
    """What messages call it; no two samples of a source share one."""
    captions: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Captions by kind (``"alt"``, ``"synthetic"``)."""
    label: int | None = None
    """Index of its class."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """Whatever else is known; evaluations can group by it. It is not in batches."""


@attrs.frozen
class View:
    """An extra rendering of the same crop that a target or objective asks for.

    ``pixels_per_patch`` fixes its size: a 16 x 16 grid with 8 pixels per patch is a 128 px view. ``normalize`` says
    whether the data's mean and standard deviation are applied; otherwise values lie in [0, 1].
    """

    key: str
    """Its name in ``batch.views``."""
    pixels_per_patch: int
    """Its size: that of the grid times this."""
    normalize: bool = False
    """Whether it is normalised as the images are; otherwise in [0, 1]."""


@attrs.frozen(eq=False)
class Batch:
    """One rank's share of a step.

    ``seed`` and ``sample_numbers_B`` determine everything random about a sample; see :mod:`aimcore.randomness`. They
    and ``text`` are always on the CPU, so that what is scored is known there and no device waits; modules move ids as
    they use them. ``views`` holds one ``[B, C, H, W]`` tensor per :class:`View` key.
    """

    images: Images
    """What the trunk reads."""
    sample_numbers_B: Tensor
    """Numbers of the samples in the run, int64; places in the source in evaluations."""
    seed: int = 0
    """Of the run."""
    text: Text | None = None
    """Captions, where the objective asks for them."""
    labels_B: Tensor | None = None
    """Classes, where the source has them."""
    views: Mapping[str, Tensor] = attrs.field(factory=dict)
    """``[B, C, H, W]`` by key, those that the objective asks for."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """``"identifiers"`` of the samples, and in evaluations their ``"captions"``."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its images, views and labels on ``device``."""
        return attrs.evolve(
            self,
            images=self.images.to(device),
            labels_B=None if self.labels_B is None else self.labels_B.to(device),
            views={key: view.to(device, non_blocking=True) for key, view in self.views.items()},
        )


@attrs.frozen(eq=False)
class Attention:
    """Who may see whom. A query at ``i`` sees a key at ``j`` when all that is set allows it.

    ``causal``: ``j <= i``, or ``j < prefix_length_B`` where a prefix is given (arXiv:2401.08541, section 4.2).
    ``valid_BN``: only valid keys are seen; a padded query sees itself, so that no row is empty.
    All indices are in reading order.
    """

    causal: bool = False
    """Whether a query sees no later key, but for a prefix."""
    prefix_length_B: Tensor | None = None
    """Leading tokens of each image that all see."""
    valid_BN: Tensor | None = None
    """True for what may be seen."""


BIDIRECTIONAL = Attention()
CAUSAL = Attention(causal=True)


@attrs.frozen(eq=False)
class Reading:
    """How a trunk reads images.

    ``order_BN``: raster index of the patch read at each step (a permutation per image, padding last); None is raster.
    ``hidden_BN``: True (in raster order) where the mask token replaces the content of a patch. ``layers``: indices of
    the blocks whose raw outputs are wanted.
    """

    attention: Attention = BIDIRECTIONAL
    """Who may see whom."""
    order_BN: Tensor | None = None
    """Raster index of the patch read at each step."""
    hidden_BN: Tensor | None = None
    """True where the mask token is read, in raster order."""
    layers: tuple[int, ...] = ()
    """Blocks whose raw outputs are wanted."""


class Features(NamedTuple):
    """What a trunk gives back, in reading order: tokens after its final norm, with the places they belong to."""

    tokens_BND: Tensor
    """After the trunk's final norm."""
    places_BN2: Tensor
    """(row, column) of each token's patch, int64; -1 on padding."""
    valid_BN: Tensor
    """False on padding."""
    layers: tuple[Tensor, ...] = ()
    """Raw block outputs ``[B, N, D]`` of the layers that the reading asked for, in that order."""

    def at(self, where_M: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[M, D]`` and places ``[M, 2]`` at flat positions ``b * N + n``."""
        return (
            self.tokens_BND.flatten(0, 1).index_select(0, where_M),
            self.places_BN2.flatten(0, 1).index_select(0, where_M),
        )

    def raster(self) -> Features:
        """The same features in raster order, padding last."""
        from aimcore.patches import reorder

        row_BN, column_BN = self.places_BN2.unbind(-1)
        # Padding has places (-1, -1); send it behind every real place.
        key_BN = torch.where(row_BN < 0, torch.iinfo(torch.int64).max, row_BN * (column_BN.amax() + 1) + column_BN)
        back_BN = key_BN.argsort(dim=1, stable=True)
        return Features(
            reorder(self.tokens_BND, back_BN),
            reorder(self.places_BN2, back_BN),
            reorder(self.valid_BN, back_BN),
            tuple(reorder(layer_BND, back_BN) for layer_BND in self.layers),
        )


class Loss(NamedTuple):
    """A loss as a sum and a count, so that ranks and accumulation steps add up exactly.

    ``sum``: scalar, the sum over scored targets. ``num_targets``: scalar, their number. ``weight``: its share in the
    total (total = sum over losses of weight * global sum / global num_targets). ``per_position_BN``: the loss
    of the target at each step of the reading order, NaN where nothing is scored; it adds up to ``sum``. Without it,
    nothing can be said per step, and causality cannot be checked. ``place_BN``: raster index of the patch that each
    step scores, int64 (any number where nothing is scored). Only needed where targets see more than that patch, as the
    tokens of a teacher do: causality is judged by the place then, otherwise by all that the target depends on.
    """

    sum: Tensor
    """Scalar tensor."""
    num_targets: Tensor
    """Scalar tensor."""
    weight: float = 1.0
    """Share in the total."""
    per_position_BN: Tensor | None = None
    """Loss at each step, NaN where nothing is scored."""
    place_BN: Tensor | None = None
    """Raster index of the patch that each step scores."""


@attrs.frozen(eq=False)
class LabelledFeatures:
    """Frozen features for a probe: ``[n, D]`` pooled or ``[n, N, D]`` tokens, with ``labels [n]``.

    Tokens of padding that is masked are NaN in all their values (see ``Probe.reads_padding``).
    """

    features: Tensor
    labels: Tensor
    num_classes: int


@attrs.frozen
class Score:
    """A measured share, such as an accuracy or a recall."""

    value: float
    """A fraction."""
    num: int
    """How many things were judged."""
    chance: float | None = None
    """What guessing would give, where that is known."""
    ci95: tuple[float, float] | None = None
    """Ends of the 95 % interval."""


Ability = Literal["causal", "prefix", "order", "hide", "native"]
"""What a trunk can do beyond reading a uniform batch bidirectionally in raster order."""
