"""Write and score captions: shared by the objectives whose decoder predicts text.

Shape suffixes: B batch, T text tokens, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from aimcore import Attention, Batch, DecoderModule, Images, ObjectiveModule, Reading, Text
from aimcore.contracts.decoders import CaptionStart, DecoderState, log_probabilities


class CaptionerModule(ObjectiveModule):
    """An objective module with a trunk and a decoder that writes captions from its features."""

    decoder: DecoderModule

    @abstractmethod
    def evaluation_reading(self, batch: Batch) -> Reading:
        """Return how the trunk reads images for captions, without randomness."""

    def caption_start(self, batch: Batch) -> CaptionStart:
        """Read the images as :meth:`evaluation_reading` describes; return the start of their captions."""
        reading = self.evaluation_reading(batch)
        features = self.trunk(batch.images, reading)
        return CaptionStart(*self.decoder.start(features, reading.attention))

    def next_token(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Read the tokens ``ids_B``; return logits ``[B, V]`` of the token after them, and the next state."""
        return self.decoder.step(ids_B, state)

    def caption_log_likelihoods(self, start: CaptionStart, text: Text) -> Tensor:
        """Return ``[B]`` in nats: the log-probability of each caption's scored tokens, all positions at once."""
        device = start.logits_BV.device
        ids_BT, valid_BT = text.ids_BT.to(device), text.valid_BT.to(device)
        logits_BTV = start.logits_BV.unsqueeze(1)
        if ids_BT.shape[1] > 1:
            logits_BTV = torch.cat([logits_BTV, self.decoder.follow(ids_BT[:, :-1], start.state)], dim=1)
        return (log_probabilities(logits_BTV, ids_BT).double() * valid_BT).sum(1)


def bidirectional(images: Images) -> Attention:
    """Bidirectional attention with padding masked."""
    return Attention(valid_BN=images.valid_BN if images.is_padded else None)
