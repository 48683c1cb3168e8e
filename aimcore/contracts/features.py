"""How a trunk reads images, and the features that it returns.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import reorder
from aimcore.contracts.old_names import accepts_old_keyword, warn_of_old_name

Capability = Literal["causal", "prefix", "order", "subset", "mask", "native", "embeddings"]
"""What a trunk can do beyond reading a uniform batch bidirectionally in raster order.

Plugins may add capabilities with other names: an objective that requires one runs on trunks that have it.
"""


@attrs.frozen(eq=False)
class Attention:
    """Which keys each query sees. A query at step ``i`` sees a key at step ``j`` if every set field allows it.

    ``causal``: ``j <= i``, or ``j < prefix_length_B`` with a prefix (arXiv:2401.08541, section 4.2).
    ``valid_BN``: queries see valid keys only; a padded query sees itself, so that no row is empty.
    All indices are in reading order.
    """

    causal: bool = False
    """Whether a query sees only its own step, earlier steps and the prefix."""
    prefix_length_B: Tensor | None = None
    """Number of leading tokens of each image that every query sees, int64."""
    valid_BN: Tensor | None = None
    """True for keys that queries may see; None makes all keys valid."""


BIDIRECTIONAL = Attention()


CAUSAL = Attention(causal=True)


@attrs.frozen(eq=False)
class Reading:
    """How a trunk reads images.

    ``order_BN``: raster index of the patch read at each step (a permutation per image, padding last); None is raster
    order. A trunk with the capability ``"subset"`` also reads fewer steps than patches: it does not read patches that
    ``order_BN`` omits, and they have no token (the visible patches of arXiv:2111.06377, the context of
    arXiv:2301.08243). Shorter rows are filled with arbitrary indices, where ``attention.valid_BN`` is False.
    ``masked_BN``: True (in raster order) where the mask token replaces the content of a patch. ``layers``: indices of
    the blocks whose raw outputs the trunk returns.
    """

    attention: Attention = BIDIRECTIONAL
    """Which keys each query sees."""
    order_BN: Tensor | None = None
    """Raster index of the patch read at each step, int64; with ``"subset"``, of some of the patches."""
    masked_BN: Tensor | None = None
    """True for masked patches, in raster order; None masks nothing."""
    layers: tuple[int, ...] = ()
    """Indices of the blocks whose raw outputs the trunk returns."""

    @property
    def hidden_BN(self) -> Tensor | None:
        """Old name of ``masked_BN``, until 0.3."""
        warn_of_old_name("Reading", "hidden_BN", "masked_BN")
        return self.masked_BN


Reading.__init__ = accepts_old_keyword(Reading.__init__, "Reading", "hidden_BN", "masked_BN")  # type: ignore[method-assign]


class Features(NamedTuple):
    """Output of a trunk, in reading order: tokens after its final norm, with the positions of their patches."""

    tokens_BND: Tensor
    """Tokens after the trunk's final norm."""
    positions_BN2: Tensor
    """(row, column) of each token's patch, int64; -1 on padding."""
    valid_BN: Tensor
    """False on padding."""
    layers: tuple[Tensor, ...] = ()
    """Raw block outputs ``[B, N, D]`` of ``Reading.layers``, in that order."""
    extra_BRD: Tensor | None = None
    """R tokens that belong to no patch, after the final norm: a class token, then registers. None if there are none
    (``Trunk.num_extra``)."""

    @property
    def places_BN2(self) -> Tensor:
        """Old name of ``positions_BN2``, until 0.3."""
        warn_of_old_name("Features", "places_BN2", "positions_BN2")
        return self.positions_BN2

    def at(self, where_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens ``[M, D]`` and positions ``[M, 2]`` at flat positions ``b * N + n``."""
        return (
            self.tokens_BND.flatten(0, 1).index_select(0, where_M),
            self.positions_BN2.flatten(0, 1).index_select(0, where_M),
        )

    def raster(self) -> Features:
        """Return the same features in raster order, padding last."""
        row_BN, column_BN = self.positions_BN2.unbind(-1)
        # Padding has positions (-1, -1); sort it after every patch.
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
    """Keys and values of the tokens read so far, for generation token by token."""

    key_BHNE: Tensor
    value_BHNE: Tensor

    def at(self, rows_M: Tensor) -> KeyValue:
        """Return keys and values of the rows ``rows_M``, which may repeat."""
        return KeyValue(self.key_BHNE.index_select(0, rows_M), self.value_BHNE.index_select(0, rows_M))


def __getattr__(name: str) -> object:
    """Return ``Capability`` for its old name ``Ability``, with a warning."""
    if name == "Ability":
        warnings.warn(
            "aimcore.Ability is now aimcore.Capability, and aimcore 0.3 removes the old name",
            DeprecationWarning,
            stacklevel=2,
        )
        return Capability
    raise AttributeError(f"module 'aimcore.contracts.features' has no attribute {name!r}")
