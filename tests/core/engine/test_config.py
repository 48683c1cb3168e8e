"""DeepSpeed's configuration."""

import pytest
from core.engine.toys import experiment

from aimcore import Engine, InvalidValue
from aimcore.engine.deepspeed_config import deepspeed_config
from aimcore_optimizers import AdamW


def test_batch_numbers_are_explicit() -> None:
    config = deepspeed_config(experiment(accumulation_steps=2), world_size=2, num_parameters=10)
    assert config["train_batch_size"] == 8
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (2, 2)


def test_deepspeed_clips_at_stages_one_to_three_only() -> None:
    configs = [deepspeed_config(experiment(stage), world_size=1, num_parameters=10) for stage in range(4)]
    assert [config["gradient_clipping"] for config in configs] == [0.0, 1.0, 1.0, 1.0]
    unclipped = experiment(1, optimizer=AdamW(gradient_clipping=None))
    assert deepspeed_config(unclipped, world_size=1, num_parameters=10)["gradient_clipping"] == 0.0


def test_the_optimizer_is_offloaded_where_its_state_is_partitioned() -> None:
    engine = Engine(zero_stage=2, precision="fp32", offload_optimizer=True)
    zero = deepspeed_config(experiment(engine=engine), world_size=1, num_parameters=10)["zero_optimization"]
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert (
        "offload_optimizer" not in deepspeed_config(experiment(2), world_size=1, num_parameters=10)["zero_optimization"]
    )
    with pytest.raises(InvalidValue, match=r"offload_optimizer: requires zero_stage 1 or more"):
        Engine(offload_optimizer=True)


def test_gradients_are_added_in_float32_where_checkpoints_allow_it() -> None:
    kinds = [(1, "bf16", False), (1, "bf16", True), (2, "bf16", False), (3, "bf16", False), (1, "autocast", False)]
    found = []
    for stage, precision, offload in kinds:
        engine = Engine(zero_stage=stage, precision=precision, offload_optimizer=offload)  # type: ignore[arg-type]
        config = deepspeed_config(experiment(engine=engine), world_size=1, num_parameters=10)
        found.append(config["data_types"]["grad_accum_dtype"])
    assert found == ["bf16", "fp32", "fp32", "fp32", "fp32"]


def test_buffers_are_no_larger_than_the_model() -> None:
    zero = deepspeed_config(experiment(), world_size=1, num_parameters=10)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 10
    zero = deepspeed_config(experiment(), world_size=1, num_parameters=11)["zero_optimization"]
    assert zero["allgather_bucket_size"] == 12
    zero = deepspeed_config(experiment(), world_size=1, num_parameters=10**10)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 500_000_000


def test_a_batch_that_does_not_divide_over_the_ranks_is_an_error() -> None:
    with pytest.raises(InvalidValue, match="8 samples per step do not divide over 3 ranks"):
        deepspeed_config(experiment(), world_size=3, num_parameters=10)
