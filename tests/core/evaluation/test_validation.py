"""Validation losses, each worked out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from core.evaluation.toys import ToyModule, sequences

from aimcore import Batch, Loss, ObjectiveModule
from aimcore.evaluation import NonFiniteLoss, ValidationLoss, loss_by_chunk, validate

T, F = True, False


def _batches() -> list[Batch]:
    return [
        sequences([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], [[F, T, T, T], [F, F, T, T]]),
        sequences([[9.0, 10.0, 11.0, 12.0]], [[F, F, F, T]], first_number=2),
    ]


def test_the_mean_is_over_all_targets_and_not_a_mean_of_batch_means() -> None:
    loss = validate(ToyModule(), _batches()).losses["toy"]
    # (2 + 3 + 4) + (7 + 8) + 12 = 36 over 6 targets; the batches' means 24 / 5 and 12 / 1 would average to 8.4.
    assert (loss.sum, loss.num_targets) == (36.0, 6)
    assert loss.mean == 6.0


def test_positions_add_up_where_they_are_scored_and_only_there() -> None:
    loss = validate(ToyModule(), _batches()).losses["toy"]
    assert loss.by_position() == (None, 2.0, 5.0, 8.0)
    assert loss.position_count_N is not None
    assert loss.position_count_N.tolist() == [0, 1, 2, 3]


def test_sequences_of_different_length_add_up_from_their_beginning() -> None:
    short = sequences([[1.0, 2.0]], [[F, T]])
    long = sequences([[1.0, 4.0, 6.0]], [[F, T, T]], first_number=1)
    assert validate(ToyModule(), [short, long]).losses["toy"].by_position() == (None, 3.0, 6.0)
    assert validate(ToyModule(), [long, short]).losses["toy"].by_position() == (None, 3.0, 6.0)


def test_a_loss_without_targets_has_no_mean_instead_of_0_over_0() -> None:
    validation = validate(ToyModule(), [sequences([[1.0, 2.0]], [[F, F]])])
    assert validation.losses["toy"].mean is None
    assert validation.total is None


def test_the_total_weighs_the_means() -> None:
    validation = validate(ToyModule(), _batches())
    assert validation.total == 0.5 * 6.0
    assert validation.num_samples == 3


def test_the_module_runs_in_evaluation_mode_without_gradients_and_gets_every_mode_back() -> None:
    module = ToyModule()
    module.train()
    module.frozen_part.eval()
    validate(module, _batches())
    assert module.seen == [(False, False)] * 2
    assert (module.training, module.trunk.training, module.frozen_part.training) == (True, True, False)


def test_the_mode_comes_back_when_validation_fails() -> None:
    module = ToyModule()
    with pytest.raises(NonFiniteLoss):
        validate(module, [sequences([[1.0, torch.inf]], [[F, T]])])
    assert module.training


def test_a_diverged_loss_is_an_error_that_names_it() -> None:
    with pytest.raises(NonFiniteLoss, match=r"'toy' adds up to nan over 1 targets.*peak_lr"):
        validate(ToyModule(), [sequences([[1.0, torch.nan]], [[F, T]])])


def test_a_loss_without_positions_has_no_chunks() -> None:
    class Plain(ToyModule):
        def forward(self, batch: Batch) -> dict[str, Loss]:
            return {"plain": Loss(torch.tensor(3.0), torch.tensor(2))}

    module: ObjectiveModule = Plain()
    loss = validate(module, _batches()).losses["plain"]
    assert (loss.mean, loss.by_chunk(16), loss.by_position()) == (1.5, None, None)


def test_autocast_is_on_where_the_precision_asks_for_it() -> None:
    class Probe(ToyModule):
        def forward(self, batch: Batch) -> dict[str, Loss]:
            return {"on": Loss(torch.tensor(float(torch.is_autocast_enabled("cpu"))), torch.tensor(1))}

    assert validate(Probe(), _batches(), precision="autocast").losses["on"].mean == 1.0
    assert validate(Probe(), _batches()).losses["on"].mean == 0.0


def test_chunk_edges_round_half_to_even() -> None:
    # Edges of 4 chunks of 10: 0, 2.5 -> 2, 5, 7.5 -> 8, 10.
    sums, counts = torch.arange(10.0), torch.ones(10)
    assert loss_by_chunk(sums, counts, num_chunks=4) == (0.5, 3.0, 6.0, 8.5)


def test_chunks_divide_sums_by_counts_and_leave_out_what_is_never_predicted() -> None:
    sums, counts = torch.tensor([0.0, 2.0, 9.0, 1.0]), torch.tensor([0, 1, 3, 1])
    # 11 / 4 would be 5 + ... had positions been averaged first: (9 / 3 + 1) / 2 = 2.
    assert loss_by_chunk(sums, counts, num_chunks=2) == (2.0, 2.5)


def test_a_chunk_without_a_predicted_patch_is_none() -> None:
    sums, counts = torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([0, 0, 2, 1])
    assert loss_by_chunk(sums, counts, num_chunks=2) == (None, 2.0)


def test_fewer_patches_than_chunks_leave_empty_chunks() -> None:
    # Edges of 16 chunks of 4: 0 0 0 1 1 1 2 2 2 2 2 3 3 3 4 4 4 (0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 3.5 -> 4).
    chunks = loss_by_chunk(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4), num_chunks=16)
    assert len(chunks) == 16
    assert [(i, value) for i, value in enumerate(chunks) if value is not None] == [
        (2, 1.0),
        (5, 2.0),
        (10, 3.0),
        (13, 4.0),
    ]


def test_a_record_is_json_with_null_for_what_is_undefined() -> None:
    record = json.loads(json.dumps(validate(ToyModule(), _batches()).record(num_chunks=2), allow_nan=False))
    assert record["losses"]["toy"]["by_chunk"] == [2.0, 6.8]
    assert record["losses"]["toy"]["by_position"][0] is None


def test_the_default_number_of_chunks_is_16() -> None:
    loss = ValidationLoss(
        sum=32.0, num_targets=32, weight=1.0, position_sum_N=torch.ones(32), position_count_N=torch.ones(32)
    )
    assert loss.by_chunk(16) == (1.0,) * 16
