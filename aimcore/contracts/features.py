"""How a trunk reads images, and the features that it returns.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import reorder
from aimcore.contracts.old_names import accepts_old_keyword, warn_of_old_name

Capability = Literal["causal", "prefix", "order", "subset", "mask", "native", "embeddings"]
"""What a trunk can do beyond reading a uniform batch bidirectionally in raster order.

Plugins may add abilities of their own, by any other names: an objective that needs one runs on trunks that have it.
"""


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
    A trunk with the ability ``"subset"`` also reads fewer steps than there are patches: those that ``order_BN`` does
    not name are not read at all, and have no token (the visible patches of arXiv:2111.06377, the context of
    arXiv:2301.08243). Rows of different lengths are filled up with any indices, where ``attention.valid_BN`` is False.
    ``masked_BN``: True (in raster order) where the mask token replaces the content of a patch. ``layers``: indices of
    the blocks whose raw outputs are wanted.
    """

    attention: Attention = BIDIRECTIONAL
    """Who may see whom."""
    order_BN: Tensor | None = None
    """Raster index of the patch read at each step; with ``"subset"`` of a part of the patches."""
    masked_BN: Tensor | None = None
    """True where the mask token is read, in raster order."""
    layers: tuple[int, ...] = ()
    """Blocks whose raw outputs are wanted."""

    @property
    def hidden_BN(self) -> Tensor | None:
        """Old name of ``masked_BN``, until 0.3."""
        warn_of_old_name("Reading", "hidden_BN", "masked_BN")
        return self.masked_BN


Reading.__init__ = accepts_old_keyword(Reading.__init__, "Reading", "hidden_BN", "masked_BN")  # type: ignore[method-assign]


class Features(NamedTuple):
    """What a trunk gives back, in reading order: tokens after its final norm, with the places they belong to."""

    tokens_BND: Tensor
    """After the trunk's final norm."""
    positions_BN2: Tensor
    """(row, column) of each token's patch, int64; -1 on padding."""
    valid_BN: Tensor
    """False on padding."""
    layers: tuple[Tensor, ...] = ()
    """Raw block outputs ``[B, N, D]`` of the layers that the reading asked for, in that order."""
    extra_BRD: Tensor | None = None
    """R tokens that belong to no patch, after the final norm: a class token, then registers. None without any
    (``Trunk.num_extra``). Heads and objectives that do not read them ignore them."""

    @property
    def places_BN2(self) -> Tensor:
        """Old name of ``positions_BN2``, until 0.3."""
        warn_of_old_name("Features", "places_BN2", "positions_BN2")
        return self.positions_BN2

    def at(self, where_M: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[M, D]`` and places ``[M, 2]`` at flat positions ``b * N + n``."""
        return (
            self.tokens_BND.flatten(0, 1).index_select(0, where_M),
            self.positions_BN2.flatten(0, 1).index_select(0, where_M),
        )

    def raster(self) -> Features:
        """The same features in raster order, padding last."""
        row_BN, column_BN = self.positions_BN2.unbind(-1)
        # Padding has places (-1, -1); send it behind every real place.
        key_BN = torch.where(row_BN < 0, torch.iinfo(torch.int64).max, row_BN * (column_BN.amax() + 1) + column_BN)
        back_BN = key_BN.argsort(dim=1, stable=True)
        return Features(
            reorder(self.tokens_BND, back_BN),
            reorder(self.positions_BN2, back_BN),
            reorder(self.valid_BN, back_BN),
            tuple(reorder(layer_BND, back_BN) for layer_BND in self.layers),
            self.extra_BRD,
        )


Features.__new__ = accepts_old_keyword(Features.__new__, "Features", "places_BN2", "positions_BN2")  # type: ignore[method-assign]


class KeyValue(NamedTuple):
    """Keys and values of tokens that were read before, for generation one token at a time."""

    key_BHNE: Tensor
    value_BHNE: Tensor

    def at(self, rows_M: Tensor) -> KeyValue:
        """Those of the rows ``rows_M``, which may repeat."""
        return KeyValue(self.key_BHNE.index_select(0, rows_M), self.value_BHNE.index_select(0, rows_M))
