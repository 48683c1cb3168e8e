"""Decoders: transformers that read image features, with or without text, and predict patches and tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Text
from aimcore.contracts.component import Component
from aimcore.contracts.features import Attention, Features, KeyValue


class Decoder(Component, ABC):
    """A decoder that reads image features, with or without text."""

    __slots__ = ()
    role: ClassVar[str] = "decoders"

    @property
    def predicts_patches(self) -> bool:
        """Whether it predicts patches in addition to text."""
        return True

    @abstractmethod
    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        """Build the module, which reads image features of width ``in_width``.

        It predicts ``num_outputs`` values per patch (none if it is 0), and logits over ``vocabulary_size`` tokens for
        texts of ``context_length`` tokens.
        """


class Decoded(NamedTuple):
    """Predictions of a decoder; None for patches or tokens that were not requested."""

    patches_MK: Tensor | None
    logits_MV: Tensor | None


class DecodedLosses(NamedTuple):
    """Predictions of patches, and the loss of each scored token."""

    patches_MK: Tensor | None
    loss_M: Tensor


class DecoderState(NamedTuple):
    """State of generation: everything that the next token depends on."""

    past: tuple[KeyValue, ...]
    """Keys and values per block."""
    seen_BL: Tensor
    """True for past tokens that a query may see; L is the length of the past."""
    num_tokens: int
    """Text tokens read so far, the begin vector included."""
    context_BND: Tensor | None = None
    """Image tokens, for a decoder that reads them again at each step."""
    looked_at: tuple[KeyValue, ...] = ()
    """Keys and values of the image per block, for a decoder with cross-attention."""

    def at(self, rows_M: Tensor) -> DecoderState:
        """Return the state of the rows ``rows_M``, which may repeat: several captions can continue from one image."""
        rows_M = rows_M.to(self.seen_BL.device)
        return DecoderState(
            tuple(kept.at(rows_M) for kept in self.past),
            self.seen_BL.index_select(0, rows_M),
            self.num_tokens,
            None if self.context_BND is None else self.context_BND.index_select(0, rows_M),
            tuple(kept.at(rows_M) for kept in self.looked_at),
        )


class CaptionStart(NamedTuple):
    """Result of reading images: the start of writing or scoring their captions."""

    logits_BV: Tensor
    """Logits of the first token."""
    state: DecoderState
    """State for the next token."""

    def at(self, rows_M: Tensor) -> CaptionStart:
        """Return the rows ``rows_M``, which may repeat."""
        return CaptionStart(self.logits_BV.index_select(0, rows_M.to(self.logits_BV.device)), self.state.at(rows_M))


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
        """Return patch predictions ``[M, K]`` and token logits ``[M, V]`` at the given flat positions.

        Args:
            features: features of the trunk, in reading order.
            attention: the attention that the trunk used.
            text: the text to read; None for images alone.
            image_where_M: steps ``b * N + n`` of the reading order, whose outputs predict the patch of the next step.
            text_where_M: tokens ``b * T + t`` to predict.
        """

    def text_losses(
        self,
        features: Features,
        attention: Attention,
        text: Text,
        image_where_M: Tensor | None,
        text_where_M: Tensor,
        loss_of: Callable[[Tensor, slice], Tensor],
    ) -> DecodedLosses:
        """Return what :meth:`forward` predicts of patches, and the losses ``[M]`` of its token logits. Optional.

        Override it to compute the logits of a large vocabulary in chunks
        (:func:`aimcore.modeling.chunked_outputs.losses_in_chunks`). It must only call parts of this module and use no
        parameter directly: at ZeRO stage 3, parameters are whole only in the forward of their own module.

        Args:
            features: as in ``forward``.
            attention: as in ``forward``.
            text: as in ``forward``.
            image_where_M: as in ``forward``.
            text_where_M: as in ``forward``.
            loss_of: from logits ``[m, V]`` and the rows of ``text_where_M`` that they belong to, the losses ``[m]``.
        """
        patches_MK, logits_MV = self(features, attention, text, image_where_M, text_where_M)
        return DecodedLosses(patches_MK, loss_of(logits_MV, slice(None)))

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        """Read image features; return logits ``[B, V]`` of the first token, and the state for the next.

        Raises:
            NotImplementedError: this decoder does not generate.
        """
        raise NotImplementedError(f"{type(self).__name__} does not generate text")

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read the tokens ``ids_B``; return logits ``[B, V]`` of the token after them, and the next state.

        Raises:
            NotImplementedError: this decoder does not generate.
        """
        raise NotImplementedError(f"{type(self).__name__} does not generate text")

    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        """Read M further tokens; return logits ``[B, M, V]`` of the token after each of them.

        The default calls :meth:`step` M times. Override it for a decoder that can read all tokens at once.
        """
        found = []
        for ids_B in ids_BM.unbind(1):
            logits_BV, state = self.step(ids_B, state)
            found.append(logits_BV)
        return torch.stack(found, dim=1)


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of each id under its logits (``[...]`` and ``[..., V]``), in float32 or float64."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return precise.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
