"""Plans of runs on many GPUs, against numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger

from aimcore import Data, Engine, Experiment, InvalidValue, NativeResolution, run
from aimcore.engine.cost import Cost, StateMemory
from aimcore.engine.gpus import GPUS, UnknownGPU, gpu_named
from aimcore.engine.plan import Cluster, Plan, plan_of, plans_of
from aimcore.engine.zero_traffic import bytes_sent
from aimcore_heads import LinearHead
from aimcore_objectives import Contrastive, NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

MILLION = 10**6
SMALL_GPU = attrs.evolve(GPUS["h100-80gb"], memory=100 * MILLION, link=8.0 * MILLION, network=2.0 * MILLION)


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Any:
    yield
    logger.remove()
    logger.disable("aimcore")


def experiment(batch_size: int = 48, precision: str = "fp32", **changes: Any) -> Experiment:
    source = BundledFashionMNIST()
    settings: dict[str, Any] = {
        "name": "planned",
        "data": Data(train=source, validation=source, batch_size=batch_size, image_size=8),
        "trunk": ViT(width=8, depth=1, num_heads=2, patch_size=4),
        "objective": NextPatch(head=LinearHead(), prefix=None),
        "num_steps": 10,
        "engine": Engine(precision=precision),  # type: ignore[arg-type]
    }
    return Experiment(**{**settings, **changes})


def million_weights(**changes: Any) -> Cost:
    """A model of a million weights, a megabyte of activations per image, and steps of 48 images."""
    settings: dict[str, Any] = {
        "trunk_parameters": MILLION - 1000,
        "objective_parameters": 1000,
        "trained_trunk_parameters": MILLION - 1000,
        "trained_parameters": MILLION,
        "flops_per_image": 6 * MILLION,
        "forward_flops_per_image": 2 * MILLION,
        "flops_per_run": 10 * 48 * 6 * MILLION,
        "num_images": 480,
        "patches_per_image": 4,
        "state": StateMemory(0, 0, 0),
        "activation_bytes_per_image": MILLION,
        "micro_batch": 48,
    }
    return Cost(**{**settings, **changes})


def planned(nodes: int = 1, gpus: int = 4, memory: int = 100 * MILLION, **changes: Any) -> Plan:
    cluster = Cluster(gpu=attrs.evolve(SMALL_GPU, memory=memory), nodes=nodes, gpus_per_node=gpus)
    return plan_of(experiment(), cluster, million_weights(**changes))


def test_each_stage_sends_what_the_paper_of_zero_counts() -> None:
    """arXiv:1910.02054, section 7: 2 P values up to stage 2, 3 P at stage 3; three quarters of it for 4 processes."""
    sent = {
        (stage, steps): bytes_sent(million_weights(), Engine(zero_stage=stage, precision="fp32"), 4, steps)
        for stage in (0, 1, 2, 3)
        for steps in (1, 2)
    }
    assert [sent[stage, 1] / (MILLION * 4 * 3 / 4) for stage in (0, 1, 2, 3)] == [2, 2, 2, 3]
    assert [sent[stage, 2] / (MILLION * 4 * 3 / 4) for stage in (0, 1, 2, 3)] == [2, 2, 3, 6]


def test_gradients_are_sent_in_float32_and_bfloat16_weights_as_they_are() -> None:
    cost = million_weights(trained_parameters=MILLION // 2)
    engines = [Engine(zero_stage=stage, precision="bf16") for stage in (1, 3)]
    assert [bytes_sent(cost, engine, 2, 1) for engine in engines] == [
        (4 + 2) * MILLION // 2 // 2,
        (4 * MILLION // 2 + 2 * 2 * MILLION) // 2,
    ]


def test_one_process_sends_nothing() -> None:
    assert all(stage.sent == 0 for stage in planned(gpus=1).stages)


def test_memory_at_the_peak_of_each_stage_is_the_sum_by_hand() -> None:
    """Megabytes of a million float32 weights on 4 processes, with 12 images of a megabyte each."""
    stages = planned().stages
    assert [stage.micro_batch for stage in stages] == [12] * 4
    assert [(stage.memory or 0) / MILLION for stage in stages] == [
        4 + 8 + 12,  # gradients and their bucket (8) need less than the activations that they replace
        4 + 3 + 12,
        4 + 3 + 12,
        1 + 3 + 4 + 1 + 4 + 12,  # gathered weights (4), own gradients (1) and a bucket (4) have memory of their own
    ]


def test_where_gradients_need_more_than_activations_they_count() -> None:
    stages = planned(activation_bytes_per_image=1000).stages
    assert [(stage.memory or 0) / MILLION for stage in stages[:3]] == [4 + 8 + 8, 4 + 3 + 8, 4 + 3 + 5]


def test_the_backward_pass_of_a_block_needs_memory_for_its_gradients() -> None:
    stages = planned(block_bytes_per_image=MILLION // 4).stages
    assert [(stage.memory or 0) / MILLION for stage in stages[:2]] == [4 + 8 + 12 + 3, 4 + 3 + 12 + 3]


def test_the_largest_micro_batch_that_fits_divides_the_batch_of_a_gpu() -> None:
    """12 images per GPU need 4 + 8 + 36; 6 leave their gradients (4) and bucket (4) beside the next micro-batch."""
    first = planned(memory=38 * MILLION * 100 // 95 + 100, activation_bytes_per_image=3 * MILLION).stages[0]
    assert (first.micro_batch, first.accumulation_steps) == (6, 2)
    assert first.memory == (4 + 8 + 8 + 18) * MILLION


def test_several_nodes_send_over_their_network() -> None:
    assert planned(nodes=1).stages[0].sending_seconds == 2 * 4 * MILLION * 3 / 4 / (8 * MILLION)
    assert planned(nodes=2, gpus=2).stages[0].sending_seconds == 2 * 4 * MILLION * 3 / 4 / (2 * MILLION)


def test_days_are_flops_over_what_the_gpus_achieve() -> None:
    plan = planned(flops_per_run=4 * 66_900_000_000_000 * 86_400)
    assert plan.days == pytest.approx(1 / 0.4)
    assert plan.flops_per_step == 4 * 66_900_000_000_000 * 8640


def test_bfloat16_weights_are_planned_at_the_stages_that_the_engine_allows() -> None:
    cluster = Cluster(gpu=SMALL_GPU, gpus_per_node=4)
    plan = plan_of(experiment(engine=Engine(precision="bf16", zero_stage=1)), cluster, million_weights())
    assert [stage.stage for stage in plan.stages] == [1, 2, 3]
    assert plan.stages[0].state == StateMemory(2 * MILLION, 2 * MILLION, 3 * MILLION)


def test_an_offloaded_optimizer_takes_no_memory_of_the_gpus() -> None:
    cluster = Cluster(gpu=SMALL_GPU, gpus_per_node=4)
    engine = Engine(precision="bf16", zero_stage=1, offload_optimizer=True)
    plan = plan_of(experiment(engine=engine), cluster, million_weights())
    assert [stage.stage for stage in plan.stages] == [1, 2, 3]
    assert plan.stages[0].state == StateMemory(2 * MILLION, 4 * MILLION, 0)
    in_autocast = Engine(zero_stage=1, offload_optimizer=True)
    assert [stage.stage for stage in plan_of(experiment(engine=in_autocast), cluster, million_weights()).stages] == [
        1,
        2,
        3,
    ]


def test_a_batch_that_does_not_divide_is_refused_with_batches_that_do() -> None:
    with pytest.raises(InvalidValue, match=r"data.batch_size: 48 samples .*not divide over 32 ranks .*use 32 or 64"):
        plans_of([experiment()], Cluster(gpu=SMALL_GPU, nodes=4))


def test_a_native_run_divides_the_images_that_its_steps_are_multiples_of() -> None:
    native = NativeResolution(patches_per_step=64, log2_area=(2, 3), images_multiple_of=2)
    made = experiment(data=attrs.evolve(experiment().data, native=native))
    with pytest.raises(InvalidValue, match=r"data.native.images_multiple_of: 2 samples"):
        plan_of(made, Cluster(gpu=SMALL_GPU, gpus_per_node=4))


def test_an_objective_that_compares_samples_has_one_micro_batch() -> None:
    made = experiment(objective=Contrastive())
    cluster = Cluster(gpu=attrs.evolve(SMALL_GPU, memory=25 * MILLION), gpus_per_node=4)
    fitting = [stage.micro_batch for stage in plan_of(made, cluster, million_weights()).stages]
    assert fitting == [None, 12, 12, None]


def test_an_experiment_that_trains_nothing_has_no_plan() -> None:
    baseline = experiment(num_steps=0)
    with pytest.raises(InvalidValue, match=r"num_steps: is 0: there is no training to plan"):
        plans_of([baseline], Cluster(gpu=SMALL_GPU))


def test_where_nothing_fits_the_plan_names_what_would() -> None:
    """Stage 2 needs 4 + 12 / W + max(4 / W + 4, 48 / W) of 9.5 megabytes: 16 processes, not 8.

    The cost with recomputation is that of the tiny model itself, which fits everywhere.
    """
    plan = planned(gpus=2, memory=10 * MILLION)
    assert not plan.fits
    need = 2 + 6 + 4 + 2 + 4 + 1  # stage 3 with one image
    assert plan.alternative == (
        f"the smallest micro-batch, 1, needs {min(need, 4 + 6 + 2 + 4 + 1) / 1000:.3g} GB per GPU; what would fit: "
        "engine.checkpoint_activations=true at ZeRO stage 0 or 8 nodes at ZeRO stage 2 or a100-40gb at ZeRO stage 0"
    )


def test_an_unknown_gpu_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownGPU, match=r"unknown GPU 'h100' \(did you mean .*\); there are a100-40gb, .*b200-180gb"):
        gpu_named("h100")


def test_every_gpu_names_its_source() -> None:
    assert all(name == gpu.name and gpu.source and gpu.network <= gpu.link for name, gpu in GPUS.items())


STUDY = """
from aimcore import Data, Experiment, Study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    source = BundledFashionMNIST()
    return Study(name="planned", experiments=[Experiment(
        name="one",
        data=Data(train=source, validation=source, batch_size=16, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=14),
        objective=NextPatch(head=LinearHead(), prefix=None),
        num_steps=2,
    )])
"""


def test_the_command_prints_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "planned.py"
    path.write_text(STUDY)
    assert run.command(["plan", str(path), "--nodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "2 x 8 h100-80gb = 16 GPUs" in printed
    assert "memory at the peak" in printed
    assert run.command(["plan", str(path), "--gpus", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cluster"]["world_size"] == 4
    assert [stage["micro_batch"] for stage in found["experiments"]["one"]["stages"]] == [4] * 4
    assert run.command(["plan", str(path), "--gpu", "tpu"]) == 2
    assert "there are a100-40gb" in capsys.readouterr().err
