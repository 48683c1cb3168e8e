"""Decoders: what reads image features, with or without text, and predicts patches and tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
        """Whether it predicts patches besides text."""
        return True

    @abstractmethod
    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        """The module: image features of width ``in_width`` in, patch values and token logits out.

        ``num_outputs`` 0 builds one that predicts no patches.
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
    """Text tokens read so far, the begin vector included."""
    context_BND: Tensor | None = None
    """Image tokens, where the decoder reads them anew at each step."""
    looked_at: tuple[KeyValue, ...] = ()
    """Keys and values of the image per block, where the decoder looks at them anew at each step."""

    def at(self, rows_M: Tensor) -> DecoderState:
        """The state of the rows ``rows_M``, which may repeat: several captions go on from one image."""
        rows_M = rows_M.to(self.seen_BL.device)
        return DecoderState(
            tuple(kept.at(rows_M) for kept in self.past),
            self.seen_BL.index_select(0, rows_M),
            self.num_tokens,
            None if self.context_BND is None else self.context_BND.index_select(0, rows_M),
            tuple(kept.at(rows_M) for kept in self.looked_at),
        )


class CaptionStart(NamedTuple):
    """Images that were read, so that captions can be written or judged."""

    logits_BV: Tensor
    """Of the first token."""
    state: DecoderState

    def at(self, rows_M: Tensor) -> CaptionStart:
        """The images ``rows_M``, which may repeat."""
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

    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        """Logits ``[B, M, V]`` of what follows each of M more tokens: as M steps give them.

        A decoder that reads all of them at once does it faster.
        """
        found = []
        for ids_B in ids_BM.unbind(1):
            logits_BV, state = self.step(ids_B, state)
            found.append(logits_BV)
        return torch.stack(found, dim=1)


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each id under its logits (``[..., V]`` and ``[...]``), in float32 or better."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return precise.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
