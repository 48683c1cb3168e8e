"""Nearest neighbours: votes worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aimcore import InvalidValue, LabelledFeatures
from aimcore_probes import KNNProbe, neighbours
from aimcore_probes.neighbours import nearest


def _bank(angles: list[float], labels: list[int], num_classes: int = 3) -> LabelledFeatures:
    return LabelledFeatures(_directions(angles), torch.tensor(labels), num_classes)


def _directions(degrees: list[float]) -> Tensor:
    radians = torch.tensor(degrees) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], 1)


NONE = LabelledFeatures(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 3)


def test_the_majority_of_the_nearest_directions_wins() -> None:
    bank = _bank([0, 10, 20, 90, 100], [0, 1, 1, 2, 2])
    fitted = KNNProbe(k=3, temperature=None).fit(bank, NONE, 0)
    assert fitted.predict(_directions([0, 95])).tolist() == [1, 2]


def test_a_near_neighbour_outweighs_two_far_ones() -> None:
    # Similarities 1, cos 40 = 0.766, 0.766: exp(1 / 0.07) > 2 exp(0.766 / 0.07), as exp(0.234 / 0.07) = 28.3.
    bank = _bank([0, 40, -40], [0, 1, 1])
    assert KNNProbe(k=3).fit(bank, NONE, 0).predict(_directions([0])).tolist() == [0]
    assert KNNProbe(k=3, temperature=1.0).fit(bank, NONE, 0).predict(_directions([0])).tolist() == [1]


def test_lengths_do_not_count() -> None:
    bank = _bank([0, 90], [0, 1])
    bank.features[1] *= 1000
    fitted = KNNProbe(k=1).fit(bank, NONE, 0)
    assert fitted.predict(5 * _directions([44, 46])).tolist() == [0, 1]


def test_votes_cannot_overflow() -> None:
    fitted = KNNProbe(k=2, temperature=1e-4).fit(_bank([0, 1], [2, 0]), NONE, 0)
    assert fitted.predict(_directions([0])).tolist() == [2]


def test_of_classes_with_equal_votes_the_first_wins() -> None:
    fitted = KNNProbe(k=2).fit(_bank([10, -10], [2, 1]), NONE, 0)
    assert fitted.predict(_directions([0])).tolist() == [1]


def test_of_equal_similarities_the_earlier_ones_are_taken() -> None:
    similarity_QT = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    value_QK, index_QK = nearest(similarity_QT, 3)
    assert index_QK.tolist() == [[1, 0, 2], [5, 4, 3]]
    assert torch.equal(value_QK, similarity_QT.gather(1, index_QK))


def test_a_thousand_equal_images_give_the_first_twenty() -> None:
    _, index_QK = nearest(torch.zeros(3, 1000), 20)
    assert index_QK.tolist() == [list(range(20))] * 3


def test_fewer_training_images_than_neighbours_all_vote() -> None:
    fitted = KNNProbe(k=20).fit(_bank([0, 90], [0, 1]), NONE, 0)
    assert fitted.choice == {"num_neighbours": 2, "similarity": "cosine", "vote": "exp(similarity / 0.07)"}
    assert fitted.predict(_directions([80])).tolist() == [1]


def test_few_similarities_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def watched(similarity_QT: Tensor, k: int) -> tuple[Tensor, Tensor]:
        shapes.append(tuple(similarity_QT.shape))
        return nearest(similarity_QT, k)

    generator = torch.Generator().manual_seed(0)
    features, queries = torch.randn(30, 4, generator=generator), torch.randn(50, 4, generator=generator)
    fitted = KNNProbe(k=5).fit(LabelledFeatures(features, torch.arange(30) % 3, 3), NONE, 0)
    whole = fitted.predict(queries)
    monkeypatch.setattr(neighbours, "_SIMILARITIES", 600)
    monkeypatch.setattr(neighbours, "nearest", watched)
    assert torch.equal(fitted.predict(queries), whole)
    assert shapes == [(20, 30), (20, 30), (10, 30)]


def test_it_needs_images_and_labels_that_are_classes() -> None:
    with pytest.raises(InvalidValue, match="train: neighbours need training images, got none"):
        KNNProbe().fit(NONE, NONE, 0)
    with pytest.raises(InvalidValue, match=r"labels must lie in \[0, 2\], got 0 to 3"):
        KNNProbe().fit(_bank([0, 1], [0, 3]), NONE, 0)


@pytest.mark.parametrize(("field", "value"), [("k", 0), ("temperature", 0.0), ("layers", (0, 0))])
def test_a_setting_that_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        KNNProbe(**{field: value})  # type: ignore[arg-type]
    assert [path for path, _ in caught.value.problems] == [field]
