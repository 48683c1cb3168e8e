"""Heads, each broken in one way."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Attention, Features, Head, HeadModule, component
from aimcore.testing.checks import heads as checks


class SoundModule(HeadModule):
    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(in_width, num_outputs)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        predictions: Tensor = self.out(features.at(where_M)[0])
        return predictions


@component("sound")
class Sound(Head):
    """A linear head."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return SoundModule(in_width, num_outputs)


@component("mutant")
class OneTooMany(Sound):
    """Gives one output more than asked for."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return SoundModule(in_width, num_outputs + 1)


class NumberedModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        return (
            super().forward(features, attention, where_M) + torch.arange(len(where_M), device=where_M.device)[:, None]
        )


@component("mutant")
class Numbered(Sound):
    """Adds to each prediction its place among those asked for."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return NumberedModule(in_width, num_outputs)


class LateModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        is_first_M = where_M % features.tokens_BND.shape[1] == 0
        return super().forward(features, attention, torch.where(is_first_M, where_M, where_M - 1))


@component("mutant")
class Late(Sound):
    """Predicts from the token before the one it is asked about."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return LateModule(in_width, num_outputs)


class AllSeeingModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        tokens_BND = features.tokens_BND + features.tokens_BND.mean(1, keepdim=True)
        return super().forward(features._replace(tokens_BND=tokens_BND), attention, where_M)


@component("mutant")
class AllSeeing(Sound):
    """Adds the mean over all tokens of the image, whatever the attention."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return AllSeeingModule(in_width, num_outputs)


class MixingModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        tokens_BND = features.tokens_BND + features.tokens_BND.mean(0)
        return super().forward(features._replace(tokens_BND=tokens_BND), attention, where_M)


@component("mutant")
class Mixing(Sound):
    """Adds the mean over the batch."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return MixingModule(in_width, num_outputs)


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator before it draws its weights."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        torch.manual_seed(0)
        return SoundModule(in_width, num_outputs)


@component("mutant")
class Unchecked(Sound):
    """Takes any width, and fails to build a negative one."""

    width: int = 8

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        torch.empty(self.width)
        return SoundModule(in_width, num_outputs)


class RandomModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        return super().forward(features, attention, where_M) * (1 + torch.rand(()))


@component("mutant")
class Random(Sound):
    """Scales its predictions at random, also in evaluation."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return RandomModule(in_width, num_outputs)


class IdleModule(SoundModule):
    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__(in_width, num_outputs)
        self.spare = nn.Linear(in_width, num_outputs)


@component("mutant")
class Idle(Sound):
    """Has a layer that it never uses."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return IdleModule(in_width, num_outputs)


@dataclasses.dataclass
class Wrapped:
    tokens: Tensor


class Wrapping(nn.Module):
    def forward(self, tokens: Tensor) -> Wrapped:
        return Wrapped(tokens)


class BoxedModule(SoundModule):
    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__(in_width, num_outputs)
        self.box = Wrapping()

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        return self.box(super().forward(features, attention, where_M)).tokens  # type: ignore[no-any-return]


@component("mutant")
class Boxed(Sound):
    """Has a part that returns a dataclass."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return BoxedModule(in_width, num_outputs)


class InPlaceModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        features.valid_BN[:, 0] = False
        return super().forward(features, attention, where_M)


@component("mutant")
class InPlace(Sound):
    """Marks a token as padding where it stands."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return InPlaceModule(in_width, num_outputs)


class BranchingModule(SoundModule):
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        tokens_BND = features.tokens_BND
        if tokens_BND.abs().max() > 1e6:
            raise ValueError("tokens explode")
        return super().forward(features, attention, where_M)


@component("mutant")
class Branching(Sound):
    """Looks at the numbers to decide what to do."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return BranchingModule(in_width, num_outputs)


class ReachingModule(SoundModule):
    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__(in_width, num_outputs)
        self.kept = (self.out.weight, self.out.bias)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        return functional.linear(features.at(where_M)[0], *self.kept)


@component("mutant")
class Reaching(Sound):
    """Keeps the weight of a part, and uses it outside that part's forward."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        return ReachingModule(in_width, num_outputs)


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_predictions_are_one_row_per_scored_position, OneTooMany()),
    (checks.check_a_prediction_depends_on_its_own_position_alone, Numbered()),
    (checks.check_a_prediction_reads_the_token_at_its_position, Late()),
    (checks.check_it_sees_no_more_than_its_attention_allows, AllSeeing()),
    (checks.check_images_do_not_mix, Mixing()),
    (checks.check_weights_follow_torchs_seed, Reseeding()),
    (checks.check_what_it_accepts_can_be_built, Unchecked()),
    (checks.check_nothing_is_random_in_evaluation, Random()),
    (checks.check_every_weight_is_trained, Idle()),
    (checks.check_its_parts_return_tensors, Boxed()),
    (checks.check_features_are_left_as_they_were, InPlace()),
    (checks.check_a_dry_run_can_count_it, Branching()),
    (checks.check_it_trains_alike_at_zero_stages_0_and_3, Reaching()),
)
