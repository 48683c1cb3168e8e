"""Contracts of the torch modules that components build.

ZeRO stage 3 gathers a module's parameters around its own forward, so three rules hold everywhere: modules return
tensors, NamedTuples or dicts; a parameter is used only inside the forward of the module that owns it; nobody reaches
into another module's parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from aimcore.layers import KeyValue
from aimcore.values import Attention, Batch, Features, Images, Loss, Reading, Text


class PredictedPatches(NamedTuple):
    """What an objective takes the patches of a batch to look like, in raster order, for pictures.

    ``patches_BNF``: pixels as in ``batch.images``; of no meaning where ``predicted_BN`` is False, because the patch
    was given (or is padding).
    """

    patches_BNF: Tensor
    predicted_BN: Tensor


class TrunkModule(nn.Module, ABC):
    """An encoder. ``width`` is D of its tokens, ``depth`` the number of blocks whose outputs can be asked for."""

    width: int
    depth: int
    patch_size: int
    num_channels: int

    @abstractmethod
    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` says; features come back in reading order."""

    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        """``[B, H, N, N]`` float32: what each query (third axis) of the last block's heads sees, in reading order.

        Optional, for pictures: rows add up to 1.

        Raises:
            NotImplementedError: this trunk does not show its attention.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show its attention")


class HeadModule(nn.Module, ABC):
    """A prediction head: from features to predictions, computed only where a loss is taken."""

    @abstractmethod
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """Predictions ``[M, K]`` at the flat positions ``where_M`` (``b * N + n``, in reading order).

        ``attention`` is what the trunk used: a head that mixes tokens must not see more.
        """


class Decoded(NamedTuple):
    """What a decoder predicts; None where nothing was asked for."""

    patches_MK: Tensor | None
    logits_MV: Tensor | None


class DecoderState(NamedTuple):
    """Where generation stands."""

    past: tuple[KeyValue, ...]
    """Keys and values per block."""
    seen_BL: Tensor
    """True for the tokens of the past that may be seen."""
    num_tokens: int
    """Text tokens read so far."""
    context_BND: Tensor | None = None
    """Image tokens, where the decoder reads them anew at each step."""


class DecoderModule(nn.Module, ABC):
    """A decoder over image features and text."""

    @abstractmethod
    def forward(
        self,
        features: Features,
        attention: Attention,
        text: Text | None,
        image_where_M: Tensor | None,
        text_where_M: Tensor | None,
    ) -> Decoded:
        """Patch predictions ``[M, K]`` and token logits ``[M, V]`` at the flat positions asked for.

        ``attention`` is what the trunk used. ``image_where_M`` are steps ``b * N + n`` of the reading order, whose
        outputs predict what comes next; ``text_where_M`` are the tokens ``b * T + t`` to be predicted.
        """

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        """Begin to generate: logits ``[B, V]`` of the first token, and the state to go on from.

        Raises:
            NotImplementedError: this decoder does not generate.
        """
        raise NotImplementedError(f"{type(self).__name__} does not generate text")

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Go on with the tokens ``ids_B``: logits ``[B, V]`` of the next one, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} does not generate text")


class ObjectiveModule(nn.Module, ABC):
    """A trunk with everything its training needs. ``forward(batch)`` is all the engine sees."""

    trunk: TrunkModule

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Number of scored targets per loss, known before any forward. Same names as the losses."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The losses of this batch."""

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """The predictions behind the losses of this batch, as pixels. Optional, for pictures.

        Raises:
            NotImplementedError: this objective predicts no patches, or its target cannot be turned into pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no patches that could be drawn")
