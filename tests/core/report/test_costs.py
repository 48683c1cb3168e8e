"""What a dry run says of a run's schedule."""

import io

import attrs
import pytest
from core.engine.toys import experiment
from rich.console import Console

from aimcore import Branch, Data, Engine, Experiment, NativeResolution, Schedule, Study, TrunkModule, component
from aimcore.engine.cost import cost_of, costs_of
from aimcore.engine.module_building import module_on_meta
from aimcore.engine.parameter_counts import ParameterCounts
from aimcore.modeling.layers import frozen_copy
from aimcore.report.cost_table import cost_table, print_costs
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, NextPatch
from aimcore_objectives.classification import ClassificationModule
from aimcore_optimizers import AdamW
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT


def rows(made: Experiment) -> dict[str, tuple[str, str]]:
    table = cost_table([made], cost_of(made), world_size=1)
    names, numbers, words = (list(column.cells) for column in table.columns)
    return {str(name): (str(number), str(word)) for name, number, word in zip(names, numbers, words, strict=True)}


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(), ("6 steps", "cosine to 0")),
        (Schedule(warmup_steps=2, decay="linear", final_lr=0.25), ("4 steps", "linear to 0.25")),
        (Schedule(decay="half_cosine"), ("6 steps", "half-cosine to 0.5")),
        (Schedule(decay="constant", cooldown_steps=2), ("4 steps", "constant")),
        (Schedule(decay="half_cosine", decay_steps=9, cooldown_steps=1), ("5 steps", "half-cosine to 0.5, at step 9")),
        (Schedule(decay="cosine", cooldown_steps=1), ("5 steps", "cosine to 0, at step 6")),
    ],
)
def test_the_decay_is_reported_with_its_length_and_its_end(schedule: Schedule, message: tuple[str, str]) -> None:
    assert rows(experiment(schedule=schedule, optimizer=AdamW(peak_lr=1.0)))["then"] == message


def test_a_cooldown_is_reported_where_there_is_one() -> None:
    with_one = experiment(schedule=Schedule(cooldown_steps=2, cooldown_lr=1e-6))
    assert rows(with_one)["cooldown"] == ("2 steps", "linearly to 1e-06")
    assert "cooldown" not in rows(experiment())


def test_a_native_run_is_reported_by_its_budget_of_patches() -> None:
    native = NativeResolution(patches_per_step=64, log2_area=(2, 3))
    data = attrs.evolve(experiment().data, native=native)
    trunk = ViT(width=8, depth=1, num_heads=2, patch_size=4)
    found = rows(experiment(data=data, trunk=trunk, objective=NextPatch(head=LinearHead())))
    assert found["training"][1].startswith("of up to 64 patches; ")
    assert found["FLOPs per image"][1].endswith("patches in the mean, padding included")
    assert found["memory, activations"][1].startswith("per image of the largest area")


def test_a_branch_costs_only_the_steps_after_it_and_the_study_the_sum() -> None:
    long = experiment(name="long")
    branch = experiment(name="branch", num_steps=8, branch=Branch(experiment="long", step=6))
    assert cost_of(branch).own_flops == pytest.approx(cost_of(branch).flops_per_run / 4)
    assert rows(branch)["  of which its own"][1] == "after step 6 of long"
    buffer, per_step = io.StringIO(), cost_of(long).flops_per_run / 6
    print_costs(
        Study(name="both", experiments=[long, branch]), costs_of([long, branch]), 1, Console(file=buffer, width=200)
    )
    assert f"({8 * per_step:.3g})" in buffer.getvalue()


def test_runs_that_differ_in_length_alone_cost_what_they_would_alone() -> None:
    made = [experiment(name="short"), experiment(name="long", num_steps=60), experiment(name="wide", batch_size=16)]
    assert costs_of(made) == {one.name: cost_of(one) for one in made}


@component("with_teacher")
class WithTeacher(Classification):
    """Holds a copy of the trunk as buffers."""

    def build(self, trunk: TrunkModule) -> ClassificationModule:
        module = super().build(trunk)
        module.teacher = frozen_copy(trunk)
        return module


def test_buffers_count_as_float32_on_every_process_and_the_optimizer_says_what_it_assumes() -> None:
    trunk = ViT(width=8, depth=1, num_heads=2, patch_size=4)
    plain, own = (
        experiment(trunk=trunk, objective=one(num_classes=2), engine=Engine(precision="bf16", zero_stage=3))
        for one in (Classification, WithTeacher)
    )
    assert "memory, buffers" not in rows(plain)
    cost = cost_of(own, world_size=2)
    assert cost.buffer_bytes == 4 * cost.trunk_parameters
    assert cost.memory - cost_of(plain, world_size=2).memory == cost.buffer_bytes
    assert "memory, buffers" in rows(own)
    assert rows(own)["memory, optimiser"][1] == "assumes two moments per trained weight, as in Adam"


def test_the_share_of_trained_parameters_is_reported_where_some_are_frozen() -> None:
    assert "  of which trained" not in rows(tiny())
    frozen = tiny(frozen=("trunk.blocks",))
    counts = ParameterCounts.of(module_on_meta(frozen))
    in_blocks = 12 * 8 * 8 + 4 * 8  # attention and FFN matrices, two norms
    trained = counts.total - in_blocks
    of_trunk = (counts.trunk - in_blocks) / counts.trunk
    message = f"{trained / counts.total:.2%} of all, {of_trunk:.2%} of the trunk's"
    assert rows(frozen)["  of which trained"] == (f"{trained:,}", message)


def tiny(**changes: object) -> Experiment:
    """One block of width 8, and a linear head."""
    trunk = ViT(width=8, depth=1, num_heads=2, patch_size=4)
    source = BundledFashionMNIST()
    data = Data(train=source, validation=source, batch_size=4, image_size=8)
    return Experiment(
        name="tiny", data=data, trunk=trunk, objective=NextPatch(head=LinearHead()), num_steps=4, **changes
    )
