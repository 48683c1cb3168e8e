"""Labels: which are classes, and who is named where one is not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from aimcore import Batch, Data, OpenSource, Sample
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.images import images_of
from aimcore.contracts.labels import label_problems, require_classes
from aimcore.data import evaluation_batches, train_steps
from aimcore_sources import BundledFashionMNIST, Mixture

FASHION = BundledFashionMNIST(split="test")
DATA = Data(train=FASHION, validation=FASHION, batch_size=4, image_size=4)


class Labelled(OpenSource):
    """Grey pictures with any labels, which the source may know beforehand."""

    def __init__(self, *labels: object, known: bool = True) -> None:
        self.given, self.known = labels, known

    def __len__(self) -> int:
        return len(self.given)

    def read(self, index: int) -> Sample:
        return Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), f"picture {index}", label=self.given[index])

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        return np.array([-1 if label is None else label for label in self.given]) if self.known else None


def test_known_labels_are_judged_before_anything_is_read() -> None:
    assert list(label_problems(Labelled(0, 2, 1), 3, all_labelled=True)) == []
    assert list(label_problems(Labelled(0, 3, 1, -5, 9, 8), 3, all_labelled=True)) == [
        "labels must lie from 0 to 2, and 4 do not: 3 at index 1, -5 at index 3, 9 at index 4, ..."
    ]
    assert list(label_problems(Labelled(0, None, None), 3, all_labelled=True)) == [
        "2 of 3 images have no label, the first at index 1"
    ]
    assert list(label_problems(Labelled(0, None), 3, all_labelled=False)) == []
    assert list(label_problems(Labelled(9, known=False), 3, all_labelled=True)) == []


@pytest.mark.parametrize("label", [-1, True, 1.0, float("nan"), "1", 2**63, torch.tensor(1)])
def test_a_label_that_is_no_integer_from_zero_on_is_named_with_its_sample(label: object) -> None:
    source = Labelled(0, 1, label, 1, known=False)
    with pytest.raises(InvalidLabel, match=r"^sample picture 2 has the label .*: labels must be non-negative integers"):
        list(evaluation_batches(DATA, source, patch_size=4, batch_size=4))
    with pytest.raises(InvalidLabel, match=r"^sample picture 2 has the label"):
        list(train_steps(DATA, source, patch_size=4, seed=0, num_steps=1))


def test_numpys_integers_are_labels() -> None:
    (batch,) = evaluation_batches(DATA, Labelled(np.int64(3), np.uint8(0), known=False), patch_size=4, batch_size=4)
    assert batch.labels_B is not None
    assert batch.labels_B.tolist() == [3, 0]


def test_labels_beyond_the_classes_are_named_with_their_samples() -> None:
    images, names = images_of(torch.zeros(3, 3, 4, 4), 4), {"identifiers": ("a", "b", "c")}
    batch = Batch(images, torch.arange(3), labels_B=torch.tensor([0, 7, 3]), extras=names)
    require_classes(batch, 8)
    with pytest.raises(InvalidLabel, match=r"from 0 to 2, and 2 of 3 .* do not: 7 of sample b, 3 of sample c"):
        require_classes(batch, 3)


def test_a_mixture_knows_the_labels_that_all_its_sources_know() -> None:
    mixture = Mixture(sources=(FASHION, FASHION), weights=(1, 1)).open()
    known = mixture.known_labels()
    assert known is not None
    assert known.shape == (6000,)
    assert [known[index] for index in (0, 2999, 3000)] == [mixture.label(index) for index in (0, 2999, 3000)]
