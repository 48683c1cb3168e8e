"""Evaluations in an experiment: held still, named by their titles, and the same on two processes as on one."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.evaluation.evaluating_rank import scores
from processes import started

SCRIPT = Path(__file__).parent / "evaluating_rank.py"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes finds."""
    meeting = tmp_path_factory.mktemp("ranks") / "meeting"
    with ExitStack() as stack:
        running = [
            stack.enter_context(started([sys.executable, SCRIPT, rank, meeting], fork=True)) for rank in range(2)
        ]
        return [json.loads(process.communicate(timeout=120)[0]) for process in running]


@pytest.mark.parametrize("skill", ["embed", "caption"])
def test_two_processes_find_what_one_does(skill: str, ranks: list[dict]) -> None:
    alone = json.loads(json.dumps(scores(skill)))
    assert ranks[0][skill] == ranks[1][skill] == alone
    assert {name.split("/")[0] for name in alone} >= {"zero_shot", "retrieval"}


def test_scores_are_called_after_their_evaluations() -> None:
    assert list(scores("caption"))[-1] == "captions/train/exact"
    assert "retrieval/train/image_to_text_centred@10" in scores("caption")
