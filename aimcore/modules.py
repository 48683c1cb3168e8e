"""Contracts of the torch modules that components build.

ZeRO stage 3 gathers a module's parameters around its own forward, so three rules hold everywhere: modules return
tensors, NamedTuples or dicts; a parameter is used only inside the forward of the module that owns it; nobody reaches
into another module's parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
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
    """D of its tokens."""
    depth: int
    """Number of blocks whose outputs can be asked for."""
    patch_size: int
    """Side of a patch in pixels; that of its component."""
    num_channels: int
    """Colour channels that it reads."""

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


class ObjectiveModule(nn.Module, ABC):
    """A trunk with everything its training needs. ``forward(batch)`` is all the engine sees."""

    trunk: TrunkModule
    """The trunk that ``build(trunk)`` was given: probes read it, and weights are found by this name."""

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Number of scored targets per loss, known before any forward. Same names as the losses."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Loss]:
        """The losses of this batch."""

    def after_step(self, step: int, num_steps: int) -> None:
        """Move this module's own state, such as an average of the weights (an EMA teacher). Optional.

        Called on every rank once per update, not per micro-batch, without gradients. All of this module's parameters
        are whole and float32 during the call, at every ZeRO stage and precision, to be read: what this changes are
        buffers, which stay float32, whole and in checkpoints too. :func:`aimcore.layers.frozen_copy` makes a copy of a
        module whose weights are buffers, and :func:`aimcore.layers.move_average` moves it. No module is called here.

        What depends on data must be added up over ranks here, and be the same on all of them afterwards.

        Args:
            step: updates done, this one included.
            num_steps: updates that the whole run has.
        """

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """The predictions behind the losses of this batch, as pixels. Optional, for pictures.

        Raises:
            NotImplementedError: this objective predicts no patches, or its target cannot be turned into pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no patches that could be drawn")

    def embed_images(self, images: Images) -> Tensor:
        """``[B, E]`` of unit length: images in the space that their captions are in. Optional, see ``Objective.can``.

        Raises:
            NotImplementedError: this objective embeds nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed images")

    def embed_texts(self, text: Text) -> Tensor:
        """``[B, E]`` of unit length: captions in the space that images are in. Optional, see ``Objective.can``.

        Raises:
            NotImplementedError: this objective embeds nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not embed text")

    def start_caption(self, images: Images) -> CaptionStart:
        """Read the images, each once: logits of the first token, and the state to go on from.

        Optional, see ``Objective.can``. Images are read as evaluation reads them, which an objective's documentation
        tells: without a prefix, for example, where the prefix was random in training.

        Raises:
            NotImplementedError: this objective writes no captions.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Go on with the tokens ``ids_B``: logits ``[B, V]`` of the next one, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} writes no captions")

    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        """``[B]`` in nats: the log-probability of each caption's scored tokens (``valid_BT``), given its image.

        The images were read by :meth:`start_caption`, so that many captions of one image cost one reading of it: take
        ``start.at(rows)``, one row per caption. By default token by token.
        """
        total_B = torch.zeros(len(start.logits_BV), dtype=torch.float64, device=start.logits_BV.device)
        ids_BT, valid_BT = text.ids_BT.to(total_B.device), text.valid_BT.to(total_B.device)
        logits_BV, state = start
        for position in range(ids_BT.shape[1]):
            picked_B = log_probabilities(logits_BV, ids_BT[:, position])
            total_B += torch.where(valid_BT[:, position], picked_B.double(), 0.0)
            if position + 1 < ids_BT.shape[1]:
                logits_BV, state = self.next_token(ids_BT[:, position], state)
        return total_B


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each id under its logits (``[..., V]`` and ``[...]``), in float32 or better."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return precise.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
