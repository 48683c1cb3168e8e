"""Threads: one where steps are small, and as many as before in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aimcore import LabelledFeatures
from aimcore_probes import LinearProbe, linear_module
from aimcore_probes import threads as probe_threads
from aimcore_probes.threads import LARGE_STEP, threads_for


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("work", "threads"), [(LARGE_STEP - 1, 1), (LARGE_STEP, 3)])
def test_small_steps_take_one_thread_and_large_ones_all(work: int, threads: int) -> None:
    with threads_for(work):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_threads_are_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), threads_for(1):
        _ = 1 / 0
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("large", "threads"), [(2520, 3), (2521, 1)])
def test_the_work_of_a_probe_is_its_batch_times_its_parameters(
    monkeypatch: pytest.MonkeyPatch, large: int, threads: int
) -> None:
    seen = set()

    class Watched(linear_module.LinearGrid):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.add(torch.get_num_threads())
            return super().forward(features)

    monkeypatch.setattr(linear_module, "LinearGrid", Watched)
    # 20 samples, 7 rates, 8 weights and a bias for each of 2 classes.
    monkeypatch.setattr(probe_threads, "LARGE_STEP", large)
    data = LabelledFeatures(torch.randn(20, 8), torch.arange(20) % 2, 2)
    LinearProbe(epochs=1, batch_size=512).fit(data, data, 0)
    assert (seen, torch.get_num_threads()) == ({threads}, 3)
