"""Activation checkpointing: the same gradients from fewer held bytes."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from core.engine.toys import ToyTrunk, experiment
from torch import Tensor, nn

from aimcore import (
    Data,
    Engine,
    Experiment,
    Features,
    Images,
    InvalidValue,
    Objective,
    Reading,
    Trunk,
    TrunkModule,
    component,
)
from aimcore.engine import TrainingEngine, build_module
from aimcore.engine.cost import cost_of
from aimcore.engine.recomputation import blocks_of, recompute_activations
from aimcore.running.preflight import CHECKS
from aimcore.testing.fixtures import as_float32, batch_for, random_images
from aimcore_decoders import CrossAttentionDecoder, JointDecoder
from aimcore_heads import LinearHead, MLPHead, TransformerHead
from aimcore_objectives import CapPa, Contrastive, Multimodal, NextPatch
from aimcore_objectives.towers import TextTower
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

VIT = ViT(width=16, depth=2, num_heads=2, patch_size=4)
TOWER = TextTower(width=16, depth=2, num_heads=2)
OBJECTIVES: dict[str, Objective] = {
    "mlp": NextPatch(head=MLPHead(width=16, depth=2)),
    "transformer": NextPatch(head=TransformerHead(width=16, depth=2, num_heads=2)),
    "joint": Multimodal(decoder=JointDecoder(width=16, depth=2, num_heads=2), context_length=6),
    "cross": CapPa(decoder=CrossAttentionDecoder(width=16, depth=2, num_heads=2), context_length=6),
    "towers": Contrastive(text_tower=TOWER, context_length=6, embedding_width=8, num_pool_heads=2),
}


@component("dropping")
class Dropping(Trunk):
    """Two blocks that drop values at random, on the embedded patches."""

    patch_size: int = 4

    def build(self) -> TrunkModule:
        return DroppingModule()


class DroppingBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.calls = 0

    def forward(self, tokens_BND: Tensor) -> Tensor:
        self.calls += 1
        return tokens_BND + nn.functional.dropout(self.linear(tokens_BND), 0.5, training=self.training)


class DroppingModule(TrunkModule):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.depth, self.patch_size, self.num_channels = 16, 2, 4, 3
        self.embed = nn.Linear(48, 16)
        self.blocks = nn.ModuleList(DroppingBlock() for _ in range(2))

    def forward(self, images: Images, reading: Reading) -> Features:
        tokens_BND = self.embed(images.patches_BNF)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return Features(tokens_BND, images.positions_BN2, images.valid_BN)


def trained(trunk: Trunk, objective: Objective, stage: int, recomputes: bool, precision: str = "fp32") -> list[Any]:
    """Losses, gradient norm and a weight of two steps."""
    engine = Engine(zero_stage=stage, precision=precision, num_threads=1, checkpoint_activations=recomputes)  # type: ignore[arg-type]
    made = experiment(trunk=trunk, objective=objective, engine=engine, batch_size=4)
    found: list[Any] = []
    with TrainingEngine(made) as training:
        for step in (0, 1):
            batch = as_float32(batch_for(objective, random_images(number=4, seed=step), seed=step))
            result = training.step([batch])
            found.append((dict(result.losses), result.gradient_norm))
        weights = training.full_state_dict()
    return [*found, {name: value.tolist() for name, value in weights.items()}]


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_is_equal_bit_for_bit(name: str, stage: int) -> None:
    plain, again = (trained(VIT, OBJECTIVES[name], stage, recomputes) for recomputes in (False, True))
    assert plain == again


@pytest.mark.parametrize(("stage", "precision"), [(1, "fp32"), (2, "fp32"), (0, "autocast"), (1, "bf16"), (3, "bf16")])
def test_at_every_stage_and_precision(stage: int, precision: str) -> None:
    plain, again = (trained(VIT, OBJECTIVES["joint"], stage, recomputes, precision) for recomputes in (False, True))
    assert plain == again


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_random_numbers_are_drawn_again(stage: int) -> None:
    from core.engine.toys import ToyObjective

    plain, again = (trained(Dropping(), ToyObjective(), stage, recomputes) for recomputes in (False, True))
    assert plain == again


def test_blocks_run_twice_in_training_and_once_without_gradients() -> None:
    from core.engine.toys import ToyObjective

    made = experiment(trunk=Dropping(), objective=ToyObjective(), engine=Engine(checkpoint_activations=True))
    module = build_module(made)
    recompute_activations(module, made)
    batch = as_float32(batch_for(made.objective, random_images(number=2)))
    with torch.no_grad():
        module(batch)
    assert [block.calls for block in module.trunk.blocks] == [1, 1]  # type: ignore[union-attr]
    module(batch)["all"].sum.backward()
    assert [block.calls for block in module.trunk.blocks] == [3, 3]  # type: ignore[union-attr]


def test_every_list_of_blocks_is_found() -> None:
    made = experiment(trunk=VIT, objective=OBJECTIVES["towers"])
    names = {block: name for name, block in build_module(made).named_modules()}
    module = build_module(made)
    names = {block: name for name, block in module.named_modules()}
    assert [names[block] for block in blocks_of(module)] == [
        "trunk.blocks.0", "trunk.blocks.1", "text_tower.blocks.0", "text_tower.blocks.1",
    ]  # fmt: skip


def test_a_trunk_without_blocks_is_refused_before_and_when_training_starts() -> None:
    made = experiment(trunk=ToyTrunk(), engine=Engine(checkpoint_activations=True))
    message = r"engine.checkpoint_activations: trunk 'toy_trunk' names no blocks, .*ToyTrunkModule.blocks_to_recompute"
    with pytest.raises(InvalidValue, match=message):
        TrainingEngine(made)
    assert "recomputation" in [check.name for check in CHECKS]


def counted(**engine: Any) -> Experiment:
    source = BundledFashionMNIST()
    return Experiment(
        name="counted",
        data=Data(train=source, validation=source, batch_size=6, image_size=8),
        trunk=ViT(width=8, depth=2, num_heads=2, patch_size=4),
        objective=NextPatch(head=LinearHead(), prefix=None),
        num_steps=10,
        engine=Engine(precision="fp32", **engine),
    )


def test_the_cost_knows_what_is_recomputed() -> None:
    """Width 8, 4 tokens, two blocks. The last product of a block is not needed to recompute its activations."""
    plain, again = cost_of(counted()), cost_of(counted(checkpoint_activations=True))
    block = 4 * 2 * 4 * 8 * 8 + 2 * 2 * 4 * 4 * 8 + 2 * 4 * 8 * 32  # projections, attention, the first of the FFN
    assert (plain.recomputed_flops_per_image, again.recomputed_flops_per_image) == (0, 2 * block)
    assert again.flops_per_image == plain.flops_per_image
    one = attrs.evolve(counted(), trunk=ViT(width=8, depth=1, num_heads=2, patch_size=4))
    of_block = plain.activation_bytes_per_image - cost_of(one).activation_bytes_per_image
    assert plain.activation_bytes_per_image - again.activation_bytes_per_image == of_block - 4 * 4 * 8


@pytest.mark.parametrize("precision", ["autocast", "bf16"])
def test_recomputation_is_counted_in_every_precision(precision: str) -> None:
    expected = cost_of(counted(checkpoint_activations=True)).recomputed_flops_per_image
    engine = Engine(precision=precision, zero_stage=1, checkpoint_activations=True)  # type: ignore[arg-type]
    assert cost_of(attrs.evolve(counted(), engine=engine)).recomputed_flops_per_image == expected
