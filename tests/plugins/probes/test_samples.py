"""Samples in memory and from a stream: the same ones, in batches that fit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Generator

from aimcore import LabelledFeatures, Probe
from aimcore.contracts.probes import FeatureStream
from aimcore_probes import AttentiveProbe, LinearProbe, samples
from aimcore_probes.grid import FittedGrid
from aimcore_probes.samples import bounded_batch, samples_of


class Pieces(FeatureStream):
    """Samples 0 to n - 1 in pieces of given sizes; a generator reverses them."""

    def __init__(self, sizes: list[int], whole: LabelledFeatures | None = None) -> None:
        count = sum(sizes)
        self.whole = whole or LabelledFeatures(torch.arange(float(count))[:, None], torch.arange(count) % 3, 3)
        self.labels, self.num_classes = self.whole.labels, self.whole.num_classes
        self.shape = tuple(self.whole.features.shape[1:])
        self.sizes = sizes

    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        parts = torch.split(torch.arange(sum(self.sizes)), self.sizes)
        for where in parts if generator is None else reversed(parts):
            yield LabelledFeatures(self.whole.features[where], self.whole.labels[where], self.num_classes)


def test_what_is_over_from_a_piece_goes_into_the_next_batch() -> None:
    streamed = samples_of(Pieces([1, 5, 4]))
    batches = [features[:, 0].tolist() for features, _ in streamed.shuffled(3, Generator())]
    assert batches == [[6, 7, 8], [9, 1, 2], [3, 4, 5]]
    labels = [labels_b.tolist() for _, labels_b in streamed.shuffled(3, Generator())]
    assert labels == [[number % 3 for number in batch] for batch in batches]


def test_in_order_every_sample_comes_once_whatever_the_pieces() -> None:
    for given in (Pieces([2, 7, 1]), Pieces([10]).read()):
        found = torch.cat([features for features, _ in samples_of(given).in_order()])
        assert found[:, 0].tolist() == list(range(10))


def test_batches_in_order_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BATCH_VALUES", 4)
    sizes = [len(labels_b) for _, labels_b in samples_of(Pieces([7, 3])).in_order()]
    assert sizes == [4, 3, 3]
    assert (bounded_batch((2,)), bounded_batch((5, 7))) == (2, 1)


def test_a_stream_is_read_whole_where_a_probe_knows_no_better() -> None:
    stream = Pieces([3, 4])
    assert torch.equal(stream.read().features, stream.whole.features)
    assert len(Pieces([]).read().labels) == 0


def _cluster(count: int, seed: int, *shape: int) -> LabelledFeatures:
    labels = torch.arange(count) % 3
    noise = torch.randn(count, *shape, generator=Generator().manual_seed(seed))
    centers = torch.eye(3, shape[-1])[labels].reshape(count, *(1,) * (len(shape) - 1), -1)
    return LabelledFeatures(noise + 20 * centers, labels, 3)


@pytest.mark.parametrize(
    ("probe", "shape"),
    [
        (LinearProbe(epochs=20, batch_size=32), (8,)),
        (AttentiveProbe(learning_rates=(4e-3,), epochs=20, batch_size=32), (4, 8)),
    ],
)
def test_a_grid_trains_from_a_stream(probe: Probe, shape: tuple[int, ...]) -> None:
    train, held_out, test = (_cluster(count, seed, *shape) for seed, count in enumerate((300, 60, 60)))
    fitted = probe.fit_stream(Pieces([100, 70, 130], train), Pieces([25, 35], held_out), 0)
    assert isinstance(fitted, FittedGrid)
    assert fitted.choice["held_out_top1"] == 1.0
    assert torch.equal(fitted.predict(test.features), test.labels)


def test_choosing_from_a_stream_equals_choosing_from_memory() -> None:
    # In one piece, in an order that does not matter: as many samples as a batch.
    train, held_out = _cluster(50, 0, 8), _cluster(31, 1, 8)
    probe = LinearProbe(epochs=3, batch_size=50)
    streamed = probe.fit_stream(Pieces([50], train), Pieces([10, 10, 11], held_out), 0)
    assert streamed.choice == probe.fit(train, held_out, 0).choice
