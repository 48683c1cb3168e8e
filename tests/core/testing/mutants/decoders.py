"""Decoders, each broken in one way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aimcore import Attention, Decoder, DecoderModule, Features, Text, component
from aimcore.contracts.decoders import Decoded, DecoderState
from aimcore.testing.checks import decoders as checks


class SoundModule(DecoderModule):
    """A linear map of each patch; logits of the image's mean and the sum of the tokens before."""

    def __init__(self, in_width: int, num_outputs: int, vocabulary_size: int) -> None:
        super().__init__()
        self.out = nn.Linear(in_width, num_outputs)
        self.read = nn.Linear(in_width, 8)
        self.embedding = nn.Embedding(vocabulary_size, 8)
        self.to_tokens = nn.Linear(8, vocabulary_size)

    def forward(
        self,
        features: Features,
        attention: Attention,
        text: Text | None,
        image_where_M: Tensor | None,
        text_where_M: Tensor | None,
    ) -> Decoded:
        assert text is not None
        assert text_where_M is not None
        patches_MK = None if image_where_M is None else self.patches(features, text)[image_where_M]
        return Decoded(patches_MK, self.logits(features, text)[text_where_M])

    def patches(self, features: Features, text: Text) -> Tensor:
        del text
        return self.out(features.tokens_BND.flatten(0, 1))  # type: ignore[no-any-return]

    def logits(self, features: Features, text: Text) -> Tensor:
        return self.to_tokens(self.image(features)[:, None] + self.before(text)).flatten(0, 1)  # type: ignore[no-any-return]

    def image(self, features: Features) -> Tensor:
        return self.read(features.tokens_BND).mean(1)  # type: ignore[no-any-return]

    def before(self, text: Text) -> Tensor:
        embedded_BTD = self.embedding(text.ids_BT)
        return embedded_BTD.cumsum(1) - embedded_BTD

    def start(self, features: Features, attention: Attention) -> tuple[Tensor, DecoderState]:
        sum_BD = self.image(features)
        return self.to_tokens(sum_BD), DecoderState((), features.valid_BN, 1, sum_BD[:, None])

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        assert state.context_BND is not None
        sum_BD = state.context_BND[:, 0] + self.embedding(ids_B)
        return self.to_tokens(sum_BD), state._replace(context_BND=sum_BD[:, None])


class SilentModule(SoundModule):
    """Does not generate."""

    start = DecoderModule.start
    step = DecoderModule.step


@component("sound")
class Sound(Decoder):
    """Sound in every way."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        return self.module()(in_width, num_outputs, vocabulary_size)

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return SoundModule


@component("sound")
class SoundWithoutGeneration(Sound):
    """Sound, and does not generate."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return SilentModule


@component("sound")
class SoundForTextOnly(Sound):
    """Sound, and predicts no patches."""

    @property
    def predicts_patches(self) -> bool:
        return False


@component("mutant")
class OneTooMany(Sound):
    """Gives patches one output more than asked for."""

    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        return SoundModule(in_width, num_outputs + 1, vocabulary_size)


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator before it draws its weights."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        torch.manual_seed(0)
        return SoundModule


class UnshiftedModule(SilentModule):
    def before(self, text: Text) -> Tensor:
        return self.embedding(text.ids_BT).cumsum(1)  # type: ignore[no-any-return]


@component("mutant")
class Unshifted(Sound):
    """Each token sees itself."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return UnshiftedModule


class CheatingModule(SilentModule):
    def patches(self, features: Features, text: Text) -> Tensor:
        tokens_BND = features.tokens_BND + features.tokens_BND.roll(-1, dims=1)
        return self.out(tokens_BND.flatten(0, 1))  # type: ignore[no-any-return]


@component("mutant")
class Cheating(Sound):
    """Patches see the features of the next step."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return CheatingModule


class BlindModule(SilentModule):
    def image(self, features: Features) -> Tensor:
        return 0 * super().image(features)


@component("mutant")
class Blind(Sound):
    """Captions do not see their image."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return BlindModule


class MixingModule(SilentModule):
    def image(self, features: Features) -> Tensor:
        image_BD = super().image(features)
        return image_BD + image_BD.mean(0)


@component("mutant")
class Mixing(Sound):
    """Captions see every image of the batch."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return MixingModule


class NeighbourlyModule(SoundModule):
    def before(self, text: Text) -> Tensor:
        before_BTD = super().before(text)
        return before_BTD + before_BTD.roll(1, dims=0)

    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        assert state.context_BND is not None
        neighbour_B1D = self.embedding(ids_B.roll(1, dims=0))[:, None]
        return super().step(ids_B, state._replace(context_BND=state.context_BND + neighbour_B1D))


@component("mutant")
class Neighbourly(Sound):
    """Adds to each caption's tokens those of the caption before it in the batch, in training and step by step."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return NeighbourlyModule


class OverheardModule(SoundModule):
    def patches(self, features: Features, text: Text) -> Tensor:
        tokens_BND = features.tokens_BND
        return self.out((tokens_BND + tokens_BND.roll(-1, dims=0)).flatten(0, 1))  # type: ignore[no-any-return]


@component("mutant")
class Overheard(Sound):
    """Patches see the same patch of the next image in the batch."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return OverheardModule


class FollowingModule(SoundModule):
    def follow(self, ids_BM: Tensor, state: DecoderState) -> Tensor:
        logits_BMV = super().follow(ids_BM, state)
        return logits_BMV + logits_BMV.mean(0)


@component("mutant")
class Following(Sound):
    """Mixes the captions of a batch where it reads several tokens at once."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return FollowingModule


class ForgetfulModule(SoundModule):
    def step(self, ids_B: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        logits_BV, _ = super().step(ids_B, state)
        return logits_BV, state


@component("mutant")
class Forgetful(Sound):
    """Generates from the last token alone."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return ForgetfulModule


class RandomModule(SilentModule):
    def logits(self, features: Features, text: Text) -> Tensor:
        return super().logits(features, text) * (1 + torch.rand(()))


@component("mutant")
class Random(Sound):
    """Scales its logits at random, also in evaluation."""

    def module(self) -> Callable[[int, int, int], DecoderModule]:
        return RandomModule


SOUND = (Sound(), SoundWithoutGeneration(), SoundForTextOnly())
MUTANTS = (
    (checks.check_predictions_are_one_row_per_position, OneTooMany()),
    (checks.check_no_token_sees_itself_or_a_later_one, Unshifted()),
    (checks.check_patches_see_no_text_and_no_later_patch, Cheating()),
    (checks.check_captions_read_their_own_image, Blind()),
    (checks.check_samples_never_mix, Mixing()),
    (checks.check_samples_never_mix, Neighbourly()),
    (checks.check_samples_never_mix, Overheard()),
    (checks.check_samples_never_mix, Following()),
    (checks.check_generation_agrees_with_training, Forgetful()),
    (checks.check_weights_follow_torchs_seed, Reseeding()),
    (checks.check_nothing_is_random_in_evaluation, Random()),
)
