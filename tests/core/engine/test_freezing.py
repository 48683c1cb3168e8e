"""Parts that are not trained stay as they are, at every stage, and cost no memory for a backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from core.engine.test_real_modules import CASES, batch, next_patch
from core.engine.toys import experiment
from loguru import logger
from torch import Tensor, nn

from aimcore import Experiment, InvalidValue, component
from aimcore.contracts.optimizers import ParameterGroup
from aimcore.engine import TrainingEngine, initial_module
from aimcore.engine.freezing import freeze
from aimcore.experiment.parameter_names import is_in
from aimcore.running.preflight.part_checks import optimizer_problems
from aimcore_optimizers import AdamW


def trained(frozen: tuple[str, ...]) -> set[str]:
    module = initial_module(experiment(frozen=frozen))
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


ALL = {
    "trunk.embed.weight", "trunk.embed.bias", "trunk.table.places", "trunk.norm.weight", "trunk.norm.bias",
    "head.weight", "head.bias",
}  # fmt: skip
"""What the toy trains; trunk.frozen it freezes itself."""


@pytest.mark.parametrize(
    ("frozen", "kept"),
    [
        ((), ALL),
        (("trunk",), {"head.weight", "head.bias"}),
        (("trunk.embed", "head.bias"), ALL - {"trunk.embed.weight", "trunk.embed.bias", "head.bias"}),
        (("trunk.*.bias",), ALL - {"trunk.embed.bias", "trunk.norm.bias"}),
    ],
)
def test_a_name_freezes_what_it_names_and_all_below(frozen: tuple[str, ...], kept: set[str]) -> None:
    assert trained(frozen) == kept


def test_a_name_is_no_beginning_of_another() -> None:
    assert is_in("trunk.blocks.1.norm.weight", "trunk.blocks.1")
    assert not is_in("trunk.blocks.10.norm.weight", "trunk.blocks.1")


def test_names_of_nothing_are_reported_with_what_there_is() -> None:
    with pytest.raises(InvalidValue) as caught:
        freeze(initial_module(experiment()), ("trunk.embde", "tower"))
    assert [message for _, message in caught.value.problems] == [
        "'trunk.embde' names no parameter (did you mean 'trunk.embed' or 'trunk.table' or 'trunk.norm'?)",
        "'tower' names no parameter; there are trunk..., head...",
    ]


@pytest.mark.parametrize(("frozen", "said"), [((), 0), (("trunk.norm",), 0), (("trunk",), 1)])
def test_a_trunk_that_is_frozen_with_fresh_weights_is_logged(frozen: tuple[str, ...], said: int) -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}", level="WARNING")
    logger.enable("aimcore")
    try:
        initial_module(experiment(frozen=frozen))
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    assert sum("the trunk is frozen with fresh weights" in line for line in lines) == said


def test_something_must_be_left_to_train() -> None:
    with pytest.raises(InvalidValue, match=r"nothing is left to train: 'trunk', 'head' cover every parameter"):
        freeze(initial_module(experiment()), ("trunk", "head"))


def steps(run: Experiment) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    with TrainingEngine(run) as engine:
        before = engine.full_state_dict()
        losses = [engine.step([batch(0)]).losses["next_patch"] for _ in range(3)]
        return before, engine.full_state_dict(), losses


@pytest.mark.parametrize(("stage", "precision"), CASES)
def test_a_frozen_trunk_stays_as_it_is_while_the_head_learns(stage: int, precision: str) -> None:
    before, after, losses = steps(next_patch(stage, precision, frozen=("trunk",)))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}
    assert losses[2] < losses[0]


def kept_by_autograd(run: Experiment) -> set[torch.Size]:
    """Shapes of what one forward keeps for its backward, parameters left out."""
    kept: list[Tensor] = []
    with TrainingEngine(run) as engine:
        engine.step([batch(0)])

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            engine.module(batch(1))
    return {tensor.shape for tensor in kept}


@pytest.mark.parametrize("stage", range(4))
def test_nothing_of_a_frozen_trunk_is_kept_for_backward(stage: int) -> None:
    attention = torch.Size((8, 2, 4, 8))
    """Queries of 8 images, 2 heads, 4 patches, width 8."""
    whole, frozen = (kept_by_autograd(next_patch(stage, "fp32", frozen=names)) for names in ((), ("trunk",)))
    assert attention in whole
    assert attention not in frozen


def test_a_frozen_part_in_the_middle_still_passes_gradients_on() -> None:
    before, after, _ = steps(next_patch(0, "fp32", frozen=("trunk.blocks.1", "head")))
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {name for name in before if name.startswith(("trunk.blocks.1.", "head."))}


def test_a_frozen_trunk_is_restored_when_a_run_is_resumed(tmp_path: Any) -> None:
    from aimcore.engine import checkpoints

    run = next_patch(3, "bf16", frozen=("trunk",))
    with TrainingEngine(run) as engine:
        engine.step([batch(0)])
        checkpoints.save(engine, tmp_path, seconds=0.0)
        expected = engine.full_state_dict()
    with TrainingEngine(run) as engine:
        checkpoints.resume(engine, tmp_path)
        found = engine.full_state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@component("recording")
class Recording(AdamW):
    """Records the parameters that it receives."""

    received: ClassVar[list[int]] = []

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        self.received[:] = [sum(len(group.parameters) for group in groups)]
        return super().build(groups)


def test_the_optimizer_is_checked_with_the_parameters_that_it_will_train() -> None:
    module = initial_module(experiment())
    assert list(optimizer_problems(module, Recording(), ("trunk",))) == []
    assert Recording.received == [2]  # weight and bias of the head
    assert {name for name, parameter in module.named_parameters() if parameter.requires_grad} == ALL
