"""Which parameters decay."""

import pytest
import torch
from core.engine.toys import experiment
from torch import nn

from aimcore import InvalidValue
from aimcore.engine.module_building import build_module
from aimcore.engine.parameter_groups import parameter_groups, torch_optimizer
from aimcore_optimizers import AdamW


def names_by_decay(module: nn.Module) -> dict[float, set[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = torch_optimizer(module, AdamW(weight_decay=0.1)).param_groups
    return {group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}


def test_only_matrices_decay_and_tables_that_say_so_do_not() -> None:
    found = names_by_decay(build_module(experiment()))
    assert found[0.1] == {"trunk.embed.weight", "head.weight"}
    assert found[0.0] == {
        "trunk.embed.bias", "trunk.table.places", "trunk.norm.weight", "trunk.norm.bias", "head.bias",
    }  # fmt: skip


def test_a_partitioned_matrix_is_known_by_the_shape_it_had() -> None:
    module = nn.Linear(3, 2)
    module.weight.ds_shape = module.weight.shape
    module.weight.data = torch.empty(0)
    assert names_by_decay(module) == {0.1: {"weight"}, 0.0: {"bias"}}


def test_a_shared_parameter_is_optimised_once() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    groups = parameter_groups(nn.Sequential(first, second), AdamW())
    assert [len(group.parameters) for group in groups] == [1]


def test_decoupled_decay_is_divided_by_the_peak_rate_that_each_group_keeps() -> None:
    optimizer = AdamW(peak_lr=0.02, weight_decay=0.1, decay="decoupled")
    groups = torch_optimizer(nn.Linear(2, 2), optimizer).param_groups
    assert [group["weight_decay"] for group in groups] == [5.0, 0.0]
    assert [group["peak_lr"] for group in groups] == [0.02, 0.02]


def test_decoupled_decay_that_would_leave_less_than_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"weight_decay: must be below 1 where decay is 'decoupled', got 1\.0"):
        AdamW(weight_decay=1.0, decay="decoupled")
    assert AdamW(weight_decay=1.0).weight_decay == 1.0
