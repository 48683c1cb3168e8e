"""Captions are right letter by letter, or not at all."""

from __future__ import annotations

from plugins.evaluations.material import Grey, KnownModule, measured, misfits

from aimcore_evaluations import Captions

SOURCE = Grey(captions=("Red  shoe", "a very long caption", "bag", "coat"))


def test_the_share_of_known_captions_is_counted() -> None:
    written = ("red shoe", "a very long caption", "bags", "something else")
    found = measured(SOURCE, Captions(kind="name"), KnownModule(captions=written), can="caption")
    # Cleaned, cut to the context as the reference is, and one wrong; "something else" is of another kind.
    assert found["captions/train/exact"].value == 0.5
    assert found["captions/train/exact"].num == 4


def test_any_wanted_caption_is_a_reference() -> None:
    written = ("red shoe", "something else", "bag", "coats")
    found = measured(SOURCE, Captions(), KnownModule(captions=written), can="caption")
    wanted = measured(
        SOURCE, Captions(), KnownModule(captions=written), can="caption", caption_weights={"name": 1.0, "other": 0.0}
    )
    assert (found["captions/train/exact"].value, wanted["captions/train/exact"].value) == (0.75, 0.5)


def test_so_many_images_are_chosen() -> None:
    found = measured(
        SOURCE, Captions(split="validation", num_images=3), KnownModule(captions=("x",) * 4), can="caption"
    )
    assert found["captions/validation/exact"].num == 3


def test_captions_that_never_end_are_reported_before_training() -> None:
    assert "does not supervise the end" in misfits(SOURCE, Captions(), can="caption", supervise_end=False)[0]
    assert misfits(SOURCE, Captions(), can="embed") == ["objective 'known' writes no captions"]
    assert misfits(SOURCE, Captions(), can="caption") == []
    assert "no caption" in misfits(Grey(captions=("", "")), Captions(), can="caption")[0]
