"""Layouts of files, each broken in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aimcore import FileLayout, StoredModel, component
from aimcore.contracts.layouts import GivenSettings, Tensors
from aimcore.contracts.tensor_forms import LeadingOnes, Stacked, TensorForm
from aimcore.contracts.tensor_maps import TensorMap, TensorTable
from aimcore.testing.checks import layouts as checks
from aimcore_trunks import ViT


@component("sound")
class Sound(FileLayout):
    """Three rules: a tensor of its own, one of each block, and two in one."""

    @property
    def title(self) -> str:
        return "weights of a test"

    @property
    def table(self) -> TensorTable:
        return TensorTable(tuple(self.rules()))

    def rules(self) -> Sequence[TensorMap]:
        return (
            TensorMap("pos", ("trunk.positions.table",), LeadingOnes()),
            TensorMap("layer{i}.norm", ("trunk.blocks.{i}.norm_1.weight",)),
            TensorMap("layer{i}.kv", ("trunk.blocks.{i}.key.weight", "trunk.blocks.{i}.value.weight"), Stacked(2)),
        )

    def model(self, tensors: Tensors, config: Mapping[str, Any] | None, given: GivenSettings) -> StoredModel:
        return StoredModel(trunk=ViT(width=16, depth=1, num_heads=2))


@component("mutant")
class Nameless(Sound):
    """Has no title."""

    @property
    def title(self) -> str:
        return " "


@component("mutant")
class Doubled(Sound):
    """Reads two tensors of the file into one of the model."""

    def rules(self) -> Sequence[TensorMap]:
        return (*super().rules(), TensorMap("layer{i}.gain", ("trunk.blocks.{i}.norm_1.weight",)))


@component("mutant")
class Numberless(Sound):
    """Reads the norms of all blocks into one tensor."""

    def rules(self) -> Sequence[TensorMap]:
        return (*super().rules(), TensorMap("layer{i}.gain", ("trunk.norm.weight",)))


class Forgetful(TensorForm):
    """Writes the transposed matrix back as it is."""

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        return (value.T,)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        return values[0]


@component("mutant")
class OneWay(Sound):
    """Has a rule that cannot be reversed."""

    def rules(self) -> Sequence[TensorMap]:
        return (*super().rules(), TensorMap("head", ("probe.weight",), Forgetful()))


@component("mutant")
class Short(Sound):
    """Names two of the three matrices in a tensor."""

    def rules(self) -> Sequence[TensorMap]:
        return (*super().rules(), TensorMap("qkv", ("probe.query", "probe.key"), Stacked(3)))


class Rounding(TensorForm):
    """Loses digits."""

    def example(self) -> Tensor:
        return torch.tensor([0.5, 1.5])

    def read(self, value: Tensor) -> tuple[Tensor, ...]:
        return (value.round(),)

    def write(self, values: Sequence[Tensor]) -> Tensor:
        return values[0]


@component("mutant")
class Lossy(Sound):
    """Has a rule that changes values."""

    def rules(self) -> Sequence[TensorMap]:
        return (*super().rules(), TensorMap("head", ("probe.weight",), Rounding()))


SOUND = (Sound(),)
MUTANTS = (
    (checks.check_it_says_what_it_is, Nameless()),
    (checks.check_no_two_rules_share_a_name, Doubled()),
    (checks.check_a_number_of_a_block_is_in_both_names, Numberless()),
    (checks.check_every_rule_can_be_reversed, OneWay()),
    (checks.check_every_rule_can_be_reversed, Short()),
    (checks.check_every_rule_can_be_reversed, Lossy()),
)
