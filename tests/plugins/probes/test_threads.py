"""Threads: one where samples have few values, and as many as before in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aimcore import LabelledFeatures
from aimcore_probes import LinearProbe, linear_module
from aimcore_probes.threads import one_thread_for


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("shape", "threads"), [((128,), 1), ((49, 128), 3)])
def test_few_values_take_one_thread_and_many_all(shape: tuple[int, ...], threads: int) -> None:
    with one_thread_for(shape):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_threads_are_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), one_thread_for((1,)):
        _ = 1 / 0
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_a_small_linear_probe_trains_and_predicts_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    class Watched(linear_module.LinearGrid):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            seen.add(torch.get_num_threads())
            return super().forward(features)

    monkeypatch.setattr(linear_module, "LinearGrid", Watched)
    data = LabelledFeatures(torch.randn(20, 8), torch.arange(20) % 2, 2)
    LinearProbe(epochs=1).fit(data, data, 0).predict(data.features)
    assert (seen, torch.get_num_threads()) == ({1}, 3)
