"""Recall by hand, with captions that several images share."""

from __future__ import annotations

import pytest
from plugins.evaluations.material import Grey, KnownModule, OpenGrey, experiment, measured, misfits

from aimcore import InvalidValue, Sample, UnreadableSample
from aimcore_evaluations import Retrieval

AXES = {"a": (1.0, 0.0, 0.0), "b": (0.0, 1.0, 0.0), "c": (0.0, 0.0, 1.0)}


def test_recall_is_counted_in_both_directions() -> None:
    # Image 1 is nearest to a, then to its own b; the others to their own. Caption b's nearest image is 1 all the same.
    module = KnownModule(images=[(1, 0, 0), (0.9, 0.5, 0), (0.1, 0.2, 1)], texts=AXES)
    scores = measured(Grey(captions=("a", "b", "c")), Retrieval(recall_at=(1, 2)), module)
    values = {name.removeprefix("retrieval/"): score.value for name, score in scores.items()}
    assert values == {
        "image_to_text@1": pytest.approx(2 / 3),
        "image_to_text@2": 1.0,
        "text_to_image@1": 1.0,
        "text_to_image@2": 1.0,
    }
    assert scores["retrieval/image_to_text@1"].chance == pytest.approx(1 / 3)


def test_another_image_with_the_same_caption_is_a_hit() -> None:
    # Caption a is nearest to image 1, which has it too, though the image itself is far from it.
    module = KnownModule(images=[(0, 0, 1), (1, 0, 0), (0, 1, 0.1)], texts=AXES)
    scores = measured(Grey(captions=("a", "A", "b")), Retrieval(recall_at=(1,)), module)
    assert scores["retrieval/text_to_image@1"].value == 1.0
    # Of three candidates two are right for each a, and one for b.
    assert scores["retrieval/text_to_image@1"].chance == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert scores["retrieval/image_to_text@1"].value == pytest.approx(2 / 3)


def test_subtracting_the_mean_helps_texts_that_are_unlikely_for_all() -> None:
    def likelihood(number: int, text: str) -> float:
        base = {"a": -1.0, "b": -10.0}[text]
        return base + (0.5 if text == "ab"[number] else 0.0)

    source, module = Grey(captions=("a", "b")), KnownModule(likelihood=likelihood)
    found = measured(source, Retrieval(recall_at=(1,), subtract_mean=True), module, can="caption")
    assert {name.removeprefix("retrieval/"): score.value for name, score in found.items()} == {
        "image_to_text@1": 0.5,
        "text_to_image@1": 1.0,
        "image_to_text_centred@1": 1.0,
    }
    embedding = KnownModule(images=[(1, 0, 0), (0, 1, 0)], texts=AXES)
    assert len(measured(source, Retrieval(recall_at=(1,), subtract_mean=True), embedding)) == 2


def test_one_image_is_taken_per_group() -> None:
    source = Grey(captions=("a", "a", "b", "b", "c"))
    module = KnownModule(images=[(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)], texts=AXES)
    scores = measured(source, Retrieval(group_by="half", recall_at=(1,)), module)
    assert scores["retrieval/image_to_text@1"].num == 3
    assert scores["retrieval/image_to_text@1"].value == 1.0


def test_a_kind_of_captions_can_be_asked_for() -> None:
    texts = {"a": (1.0, 0.0), "b": (0.0, 1.0)}
    module = KnownModule(images=[(1, 0), (0, 1)], texts=texts)
    found = measured(Grey(captions=("a", "b")), Retrieval(kind="other", recall_at=(1,)), module)
    assert found["retrieval/image_to_text@1"].value == 1.0
    (problem,) = misfits(Grey(captions=("a", "b")), Retrieval(kind="alt"))
    assert (
        problem
        == "retrieval needs captioned images in data.validation: the first samples have no caption of kind 'alt'"
    )


def test_a_first_image_that_cannot_be_read_hides_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    read = OpenGrey.read

    def damaged(source: OpenGrey, index: int) -> Sample:
        if index == 0:
            raise UnreadableSample("grey 0", "damaged")
        return read(source, index)

    monkeypatch.setattr(OpenGrey, "read", damaged)
    assert misfits(Grey(captions=("a", "b", "c")), Retrieval(group_by="half")) == []


def test_what_does_not_fit_is_reported() -> None:
    (problem,) = misfits(Grey(captions=("a", "b")), Retrieval(group_by="concept"))
    assert "have nothing called 'concept' (they have ['half'])" in problem
    assert "neither embeds" in misfits(Grey(captions=("a", "b")), Retrieval(), can="nothing")[0]
    with pytest.raises(InvalidValue, match=r"recall_at: must be ranks of at least 1"):
        Retrieval(recall_at=())


def test_two_evaluations_of_one_title_are_reported_before_training() -> None:
    import attrs

    one = experiment(Grey(captions=("a", "b")), Retrieval())
    with pytest.raises(InvalidValue, match=r"evaluations\.1: two evaluations are called 'retrieval'"):
        attrs.evolve(one, evaluations=(Retrieval(), Retrieval(max_images=5)))
    others = (Retrieval(), Retrieval(split="train"))
    assert attrs.evolve(one, evaluations=others).evaluations == others
