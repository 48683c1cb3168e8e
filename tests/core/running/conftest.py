"""A study that trains in no time: the engine and the evaluation are stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import pytest

from aimcore import Data, Experiment, Study
from aimcore.engine.parameter_counts import ParameterCounts
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

Behaviour = Callable[[], None]


@pytest.fixture
def make_experiment() -> Callable[..., Experiment]:
    """Experiments of two steps, by name."""
    return _experiment


@pytest.fixture
def make_study() -> Callable[..., Study]:
    """Studies of experiments, by their names."""
    return lambda *names: _study(*(_experiment(name) for name in names))


def _experiment(name: str, **changes: Any) -> Experiment:
    source = BundledFashionMNIST()
    fields: dict[str, Any] = {
        "name": name,
        "data": Data(train=source, validation=source, batch_size=4, image_size=28),
        "trunk": ViT(width=16, depth=1, num_heads=2, patch_size=14),
        "objective": NextPatch(head=LinearHead(), prefix=None),
        "num_steps": 2,
    }
    return Experiment(**fields | changes)


def _study(*experiments: Experiment) -> Study:
    return Study(name="table", experiments=experiments, paper={experiments[0].name: {"linear": 0.5}})


class FakeEngine:
    """Held by a result until the run is evaluated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def whole_module(self) -> Any:
        """Return the module of the result, which is not partitioned."""
        return FakeResult().module


@attrs.frozen
class FakeResult:
    status: str = "finished"
    num_steps: int = 2
    losses: Mapping[str, float] = attrs.field(factory=lambda: {"next_patch": 0.5})
    patches_per_second: float | None = 100.0
    seconds: float = 1.0
    engine: FakeEngine = attrs.field(factory=FakeEngine)
    parameters: ParameterCounts = attrs.field(
        factory=lambda: ParameterCounts(trunk=30, trunk_trained=30, other=20, other_trained=20)
    )
    num_unreadable: int = 0
    missing_metrics: str = ""
    peak_memory: int | None = None
    data_share: float | None = None

    @property
    def module(self) -> Any:
        """The untrained module does for the evaluation."""
        from aimcore.engine import build_module

        return build_module(_experiment("module"))


@attrs.define
class FakeTraining:
    """Stands in for ``aimcore.engine.train``: does what is configured for each experiment, and records the calls."""

    behaviours: dict[str, Behaviour] = attrs.field(factory=dict)
    statuses: dict[str, str] = attrs.field(factory=dict)
    calls: list[tuple[str, bool]] = attrs.field(factory=list)
    kept: dict[str, set[int]] = attrs.field(factory=dict)
    """Steps whose checkpoints each experiment was asked to keep."""
    begun: list[Experiment] = attrs.field(factory=list)
    missing_metrics: str = ""

    def __call__(
        self,
        given: Experiment,
        folder: Path,
        *,
        resume: bool = False,
        progress: bool = True,
        keep_steps: Collection[int] = (),
        validate: Callable[[Any], dict[str, float]] | None = None,
    ) -> FakeResult:
        self.calls.append((given.name, resume))
        self.kept[given.name] = set(keep_steps)
        self.begun.append(given)
        self.behaviours.get(given.name, lambda: None)()
        status = self.statuses.get(given.name, "finished")
        return FakeResult(status=status, missing_metrics=self.missing_metrics)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr("aimcore.running.experiment_run.train", fake)
    monkeypatch.setattr("aimcore.running.experiment_run._validation_batches", lambda *_: _two_batches())
    return fake


def _two_batches() -> Any:
    import torch

    from aimcore import Batch
    from aimcore.contracts.images import images_of

    generator = torch.Generator().manual_seed(0)
    for first in (0, 3):
        pixels = torch.rand(3, 3, 28, 28, generator=generator)
        yield Batch(images=images_of(pixels, 14), sample_numbers_B=torch.arange(first, first + 3))
