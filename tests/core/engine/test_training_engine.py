"""One step: equal to a plain loop at every stage, whatever the number of micro-batches."""

from __future__ import annotations

import gc
import weakref

import attrs
import pytest
import torch
from core.engine.plain_loop import train_plainly
from core.engine.toys import ToyObjective, ToyObjectiveModule, ToyTrunk, experiment, parts, whole_batch

from aimcore import Batch, Loss, Schedule
from aimcore.contracts.images import images_of
from aimcore.engine import TrainingDiverged, TrainingEngine, build_module
from aimcore_optimizers import AdamW

STAGES = (0, 1, 2, 3)
LOW = tuple((stage, "bf16") for stage in STAGES[1:])
RATES = [0.01, 0.03, 0.05, 0.025]
TUNED = {
    "num_steps": 4,
    "optimizer": AdamW(peak_lr=0.05, weight_decay=0.1, gradient_clipping=0.5),
    "schedule": Schedule(warmup_steps=2, warmup_lr=0.01),
}
"""Large steps, so that a wrong update shows; the rates of its steps are RATES."""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_the_engine_equals_a_plain_loop(stage: int, accumulation_steps: int) -> None:
    run = experiment(stage, accumulation_steps=accumulation_steps, **TUNED)
    losses, norms, module = train_plainly(run, whole_batch, RATES)
    with TrainingEngine(run) as engine:
        results = [engine.step(parts(whole_batch(step), accumulation_steps)) for step in range(4)]
        weights = engine.full_state_dict()
    assert [result.learning_rate for result in results] == pytest.approx(RATES)
    assert [result.gradient_norm for result in results] == pytest.approx(norms, rel=1e-6)
    for result, expected in zip(results, losses, strict=True):
        assert result.losses == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights, dict(module.state_dict()), rtol=1e-5, atol=1e-6)


def test_the_plain_loop_clips_and_its_losses_fall() -> None:
    losses, norms, _ = train_plainly(experiment(**TUNED), whole_batch, RATES)
    assert min(norms) > 0.5
    assert losses[-1]["all"] < losses[0]["all"]


@pytest.mark.parametrize("stage", STAGES)
def test_decoupled_decay_equals_its_formula_written_out(stage: int) -> None:
    decoupled = AdamW(peak_lr=0.05, weight_decay=0.1, decay="decoupled", gradient_clipping=0.5)
    run = experiment(stage, **TUNED | {"optimizer": decoupled})
    _, norms, module = train_plainly(run, whole_batch, RATES)
    with TrainingEngine(run) as engine:
        results = [engine.step([whole_batch(step)]) for step in range(4)]
        weights = engine.full_state_dict()
    assert [result.gradient_norm for result in results] == pytest.approx(norms, rel=1e-6)
    torch.testing.assert_close(weights, dict(module.state_dict()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("decay", "kept"),
    [
        # Rates of a fifth, three fifths, all and half of the peak: times 1 - 0.1 of that.
        ("decoupled", 0.98 * 0.94 * 0.9 * 0.95),
        ("coupled", (1 - 0.001) * (1 - 0.003) * (1 - 0.005) * (1 - 0.0025)),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_weight_without_gradient_keeps_what_the_decay_leaves_of_it(stage: int, decay: str, kept: float) -> None:
    optimizer = AdamW(peak_lr=0.05, weight_decay=0.1, decay=decay)  # type: ignore[arg-type]
    run = experiment(stage, **TUNED | {"optimizer": optimizer})
    with TrainingEngine(run) as engine:
        before = engine.full_state_dict()["trunk.embed.weight"]
        for step in range(4):
            engine.step([black(whole_batch(step))])
        after = engine.full_state_dict()["trunk.embed.weight"]
    torch.testing.assert_close(after, before * kept, rtol=1e-6, atol=0)


def black(batch: Batch) -> Batch:
    """Without pixels to multiply with, the embedding has no gradient."""
    return Batch(images=images_of(batch.images.pixels_BCHW * 0, 4), sample_numbers_B=batch.sample_numbers_B)


@pytest.mark.parametrize(("stage", "precision"), [*((stage, "fp32") for stage in STAGES), *LOW])
def test_initial_weights_are_the_same_at_every_stage_and_precision(stage: int, precision: str) -> None:
    expected = build_module(experiment()).state_dict()
    with TrainingEngine(experiment(stage, precision)) as engine:
        found = engine.full_state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # A frozen weight has no float32 master.
        is_rounded = precision == "bf16" and "frozen" in name
        assert torch.equal(found[name], value.bfloat16().float() if is_rounded else value), name


@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")])
def test_an_offloaded_optimizer_makes_the_same_updates(stage: int, precision: str) -> None:
    found = []
    for offload in (False, True):
        run = experiment(stage, precision, **TUNED)
        run = attrs.evolve(run, engine=attrs.evolve(run.engine, offload_optimizer=offload))
        with TrainingEngine(run) as engine:
            results = [engine.step([whole_batch(step)]) for step in range(4)]
            numbers = [(dict(result.losses), result.gradient_norm) for result in results]
            found.append((numbers, engine.full_state_dict()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stage", [2, 3])
def test_gradients_of_micro_batches_are_added_in_float32(stage: int) -> None:
    # bfloat16 has 8 significant bits: 1 + 2^-9 is rounded to 1.
    class Linear(ToyObjectiveModule):
        def forward(self, batch: Batch) -> dict[str, Loss]:
            shares = {0: 1.0, 2: 2.0**-9, 4: 2.0**-9, 6: 2.0**-9}
            factor = shares[int(batch.sample_numbers_B[0])]
            count = torch.tensor(batch.sample_numbers_B.numel() * 4)
            return {"all": Loss(self.head.bias.sum() * factor * 32, count), "thirds": Loss(count * 0.0, count)}

    run = experiment(stage, "bf16", accumulation_steps=4, optimizer=AdamW(gradient_clipping=None))
    with TrainingEngine(run, Linear(ToyObjective(), ToyTrunk().build())) as engine:
        norm = engine.step(parts(whole_batch(0), 4)).gradient_norm
    assert norm == 1 + 3 * 2.0**-9


@pytest.mark.parametrize("stage", [2, 3])
def test_bfloat16_gives_the_same_updates_at_every_stage(stage: int) -> None:
    found = {}
    for number in (1, stage):
        with TrainingEngine(experiment(number, "bf16", **TUNED)) as engine:
            losses = [engine.step([whole_batch(step)]).losses for step in range(4)]
            found[number] = losses, engine.full_state_dict()
    torch.testing.assert_close(found[stage], found[1], rtol=1e-5, atol=1e-6)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = build_module(experiment(seed=1)), build_module(experiment(seed=2))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize("stage", STAGES)
def test_the_gradient_norm_is_reported_without_clipping(stage: int) -> None:
    run = experiment(stage, optimizer=AdamW(gradient_clipping=None))
    _, norms, _ = train_plainly(experiment(optimizer=AdamW(gradient_clipping=1e9)), whole_batch, [1e-3])
    with TrainingEngine(run) as engine:
        assert engine.step([whole_batch(0)]).gradient_norm == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_without_targets_adds_nothing_and_is_not_reported(stage: int) -> None:
    batch = parts(whole_batch(0), 8, 1)  # sample 1: not a third
    with TrainingEngine(experiment(stage, batch_size=1)) as engine:
        result = engine.step(batch)
        after = engine.step(batch)
    assert result.losses.keys() == {"all"}
    assert result.num_targets == {"all": 4, "thirds": 0}
    assert after.losses["all"] < result.losses["all"]


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, "fp32"), (0, "autocast"), (1, "fp32"), (1, "bf16"), (2, "bf16"), (3, "fp32"), (3, "bf16")],
)
@pytest.mark.parametrize("objective", [ToyObjective(poison=3), ToyObjective(exploding=True)])
def test_what_is_not_finite_stops_before_the_update(stage: int, precision: str, objective: ToyObjective) -> None:
    run = experiment(stage, precision, objective=objective)
    with TrainingEngine(run) as engine:
        before = engine.full_state_dict()
        with pytest.raises(TrainingDiverged, match=r"training diverged at step 0: .*Try a lower optimizer.peak_lr"):
            engine.step([whole_batch(0)])
        found = engine.full_state_dict()
    assert all(torch.equal(found[name], value) for name, value in before.items())


@pytest.mark.parametrize("stage", STAGES)
def test_dropout_depends_on_the_step_and_not_on_what_was_drawn_before(stage: int) -> None:
    run = experiment(stage, trunk=ToyTrunk(dropout=0.5))
    found = []
    for disturbance in (0, 1):
        torch.manual_seed(disturbance)
        with TrainingEngine(run) as engine:
            found.append([engine.step([whole_batch(0)]).losses["all"] for _ in range(2)])
            torch.rand(3)
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_step_wants_as_many_micro_batches_as_there_are_accumulation_steps() -> None:
    with (
        TrainingEngine(experiment(accumulation_steps=2)) as engine,
        pytest.raises(ValueError, match="a step has 2 micro-batches, got 1"),
    ):
        engine.step([whole_batch(0)])


@pytest.mark.parametrize("stage", STAGES)
def test_a_closed_engine_is_freed(stage: int) -> None:
    with TrainingEngine(experiment(stage)) as engine:
        for step in range(3):  # from the second step on, stage 3 has its trace and caches what to release
            engine.step([whole_batch(step)])
        module = weakref.ref(engine.module)
    del engine
    gc.collect()
    assert module() is None


def test_a_closed_engine_of_stage_3_leaves_torch_as_it_was() -> None:
    """DeepSpeed's own linear function would stay otherwise, and later runs would give other losses in autocast."""
    with TrainingEngine(experiment(3)) as engine:
        engine.step([whole_batch(0)])
    assert torch.nn.functional.linear is torch._C._nn.linear


def test_weights_are_not_formatted_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """At stage 3 DeepSpeed formats all of them for a message that it does not show."""
    formatted: list[str] = []
    shown = torch.nn.Parameter.__repr__

    def remembered(self: torch.nn.Parameter) -> str:
        formatted.append(shown(self))
        return formatted[-1]

    monkeypatch.setattr(torch.nn.Parameter, "__repr__", remembered)
    with TrainingEngine(experiment(3)):
        """It is built, and not run."""
    assert max(map(len, formatted), default=0) < 200
    assert "..." not in repr(torch.arange(4))


def test_deepspeed_does_not_wait_for_the_device_to_time_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import get_accelerator

    waits: list[int] = []
    with TrainingEngine(experiment()) as engine:
        monkeypatch.setattr(get_accelerator(), "synchronize", lambda *_: waits.append(engine.step_number))
        for step in range(4):
            engine.step([whole_batch(step)])
    assert waits == []
