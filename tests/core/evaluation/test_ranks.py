"""Two processes with unequal shares get what one process would, and run equally many forwards."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.evaluation.one_rank import probed
from core.evaluation.toys import ToyTrunkModule
from processes import started

from aimcore.evaluation.feature_keys import weights_digest

SCRIPT = Path(__file__).parent / "one_rank.py"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    rendezvous = tmp_path_factory.mktemp("ranks") / "rendezvous"
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(started([sys.executable, SCRIPT, rank, rendezvous], fork=True)) for rank in range(2)
        ]
        return [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]


def test_sums_and_counts_add_up_over_ranks_and_a_repeated_batch_does_not_count(both: list[dict[str, Any]]) -> None:
    toy = both[0]["record"]["losses"]["toy"]
    # (0.5 + 1.5 + 2.5 + 3.5 + 4.5) / 5
    assert (toy["mean"], toy["num_targets"], toy["by_chunk"]) == (2.5, 5, [None, 2.5])
    assert both[0]["record"] == both[1]["record"]


def test_both_ranks_hold_all_features_in_the_order_of_the_samples(both: list[dict[str, Any]]) -> None:
    assert both[0]["features"] == [[0.0, 0.5], [1.0, 1.5], [2.0, 2.5], [3.0, 3.5], [4.0, 4.5]]
    assert both[0]["labels"] == [0, 1, 2, 0, 1]
    assert (both[1]["features"], both[1]["labels"]) == (both[0]["features"], both[0]["labels"])


def test_ranks_run_equally_many_forwards(both: list[dict[str, Any]]) -> None:
    assert [rank["num_forwards"] for rank in both] == [3, 3]


def test_a_rank_without_a_batch_is_refused_on_every_rank(both: list[dict[str, Any]]) -> None:
    assert [rank["refused"] for rank in both] == [True, True]


def test_what_one_process_stores_of_all_samples_every_process_finds(both: list[dict[str, Any]]) -> None:
    for found in both:
        stored = found["stored"]
        assert (stored["numbers"], stored["found"]) == ([0, 1, 3, 4], [False, True])
        assert stored["features"] == [[float(number), number + 0.5] for number in (0, 1, 3, 4)]


def test_equal_weights_have_one_digest_whatever_the_number_of_processes(both: list[dict[str, Any]]) -> None:
    alone = weights_digest(ToyTrunkModule(patch_size=1, num_channels=1))
    assert [found["stored"]["digest"] for found in both] == [alone, alone]


def test_probes_of_augmented_images_and_of_every_block_do_not_depend_on_the_number_of_processes(
    both: list[dict[str, Any]],
) -> None:
    alone = probed()
    assert [len(epoch) for epoch in alone["epochs"]] == [36, 36]
    assert [found["probed"] for found in both] == [alone, alone]
