"""Images that cannot be read are left out of every evaluation, and counted once whoever meets them."""

from __future__ import annotations

import attrs
import pytest
from plugins.evaluations.material import Grey, KnownModule, OpenGrey, experiment

from aimcore import Evaluation, OpenSource, Sample, component
from aimcore.contracts.errors import UnreadableSample
from aimcore.evaluation import evaluate
from aimcore_evaluations import Captions, Retrieval, ZeroShot


@component("damaged_grey")
class DamagedGrey(Grey):
    """Images 1 and 3 are damaged; labels are known without reading, or not."""

    knows_labels: bool = False

    def open(self) -> OpenSource:
        return KnowsLabels(self) if self.knows_labels else OpenDamaged(self)


class OpenDamaged(OpenGrey):
    def read(self, index: int) -> Sample:
        if index in (1, 3):
            raise UnreadableSample(f"grey {index}", "it is damaged")
        return super().read(index)


class KnowsLabels(OpenDamaged):
    def label(self, index: int) -> int | None:
        return self.source.labels[index]


DAMAGED = DamagedGrey(captions=("a", "b", "a", "b", "b"), labels=(0, 1, 0, 1, 1), classes=("a", "b"))
IMAGES = [(1, 0), (0, 1), (1, 0), (0, 1), (0, 1)]
EMBEDS = KnownModule(images=IMAGES, texts={"a": (1.0, 0.0), "b": (0.0, 1.0)})
WRITES = KnownModule(captions=DAMAGED.captions)


@pytest.mark.parametrize(
    ("evaluations", "unread"),
    [
        ((Retrieval(recall_at=(1,)),), {"validation": {1, 3}}),
        ((Retrieval(recall_at=(1,), split="train"),), {"train": {1, 3}}),
        ((ZeroShot(),), {"validation": {1, 3}}),
        ((ZeroShot(), Retrieval(recall_at=(1,))), {"validation": {1, 3}}),
    ],
)
@pytest.mark.parametrize("knows_labels", [False, True])
def test_images_are_counted_once(evaluations: tuple[Evaluation, ...], unread: dict, knows_labels: bool) -> None:
    source = attrs.evolve(DAMAGED, knows_labels=knows_labels)
    made = attrs.evolve(experiment(source, evaluations[0]), evaluations=evaluations)
    evaluated = evaluate(made, EMBEDS)
    assert {score.value for score in evaluated.scores.values()} == {1.0}
    assert {score.num for score in evaluated.scores.values()} == {3}
    assert evaluated.unread == unread


def test_captions_count_what_they_cannot_read() -> None:
    assert evaluate(experiment(DAMAGED, Captions(), can="caption"), WRITES).unread == {"train": {1, 3}}


def test_test_images_of_probes_are_counted_as_such() -> None:
    made = experiment(Grey(captions=("a",)), ZeroShot(), probe_test=DAMAGED)
    assert evaluate(made, EMBEDS).unread == {"probe_test": {1, 3}}


def test_where_all_can_be_read_nothing_is_counted() -> None:
    source = Grey(captions=("a", "b"), labels=(0, 1), classes=("a", "b"))
    assert evaluate(experiment(source, ZeroShot()), EMBEDS).unread == {}
