"""Decoders, each broken in one way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aimcore import Decoder, DecoderModule, Features, component
from aimcore.testing.checks import decoders as checks


class SoundModule(DecoderModule):
    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(in_width, num_outputs)

    def forward(
        self, features: Features, text: object, image_where_M: Tensor, text_where_M: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        return self.out(features.at(image_where_M)[0]), None


@component("sound")
class Sound(Decoder):
    """A linear map of image features, and nothing for text."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        return SoundModule(in_width, num_outputs)


@component("mutant")
class OneTooMany(Sound):
    """Gives one output more than asked for."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        return SoundModule(in_width, num_outputs + 1)


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator before it draws its weights."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        torch.manual_seed(0)
        return SoundModule(in_width, num_outputs)


class RandomModule(SoundModule):
    def forward(
        self, features: Features, text: object, image_where_M: Tensor, text_where_M: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        return self.out(features.at(image_where_M)[0]) * (1 + torch.rand(())), None


@component("mutant")
class Random(Sound):
    """Scales its predictions at random, also in evaluation."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        return RandomModule(in_width, num_outputs)


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_patch_predictions_are_one_row_per_position, OneTooMany()),
    (checks.check_weights_follow_torchs_seed, Reseeding()),
    (checks.check_nothing_is_random_in_evaluation, Random()),
)
