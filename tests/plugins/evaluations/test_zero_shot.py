"""Classes by their names: known embeddings, known likelihoods."""

from __future__ import annotations

import math

import pytest
from plugins.evaluations.material import Grey, KnownModule, experiment, measured, misfits

from aimcore import InvalidValue
from aimcore.contracts.errors import InvalidLabel
from aimcore.evaluation import OpenEvaluationData, wilson_interval
from aimcore_evaluations import PROMPTS, ZeroShot

FOUR = Grey(captions=("a",) * 4, labels=(0, 1, 1, 0), classes=("cat", "dog"))
AXES = {"cat": (1.0, 0.0), "dog": (0.0, 1.0)}


def test_the_class_whose_name_is_nearest_wins() -> None:
    module = KnownModule(images=[(1, 0.1), (0.1, 1), (1, 0.5), (0.2, 0.1)], texts=AXES)
    scores = measured(FOUR, ZeroShot(), module)
    assert list(scores) == ["zero_shot/top1"]
    found = scores["zero_shot/top1"]
    assert (found.value, found.num, found.chance, found.ci95) == (0.75, 4, 0.5, wilson_interval(3, 4))


def test_a_class_is_the_normalised_mean_of_its_prompts() -> None:
    # The mean of the cat's prompts is (0.5, 0.5), half as long as the dog's; its direction counts.
    texts = {"cat": (1.0, 0.0), "a cat": (0.0, 1.0), "dog": (0.0, 1.0), "a dog": (0.0, 1.0)}
    source = Grey(captions=("a",), labels=(0,), classes=("cat", "dog"))
    found = measured(source, ZeroShot(templates=("{}", "a {}")), KnownModule(images=[(0.5, 0.6)], texts=texts))
    assert found["zero_shot/top1"].value == 1.0


def test_top5_is_given_of_more_than_five_classes() -> None:
    names = tuple("abcdef")
    texts = {name: (math.cos(angle), math.sin(angle)) for angle, name in enumerate(names)}
    source = Grey(captions=("a",) * 2, labels=(3, 2), classes=names)
    scores = measured(source, ZeroShot(), KnownModule(images=[(1, 0), (1, 0)], texts=texts))
    # From angle 0, class d at 3 radians is the farthest; class c at 2 the fifth: 4 and 5 have come round again.
    assert (scores["zero_shot/top1"].value, scores["zero_shot/top5"].value) == (0.0, 0.5)
    assert scores["zero_shot/top5"].chance == pytest.approx(5 / 6)


def test_captioners_choose_by_mean_log_likelihood_of_the_prompts() -> None:
    likelihoods = {"cat": -6.0, "a cat": -1.0, "dog": -2.0, "a dog": -6.0}
    source = Grey(captions=("a",), labels=(0,), classes=("cat", "dog"))
    module = KnownModule(likelihood=lambda _, text: likelihoods[text])
    name, both = (
        measured(source, ZeroShot(templates=templates), module, can="caption")["zero_shot/top1"].value
        for templates in (("{}",), ("{}", "a {}"))
    )
    # By the name alone the dog, by the mean of both prompts the cat (-3.5 against -4).
    assert (name, both) == (0.0, 1.0)


def test_likelihoods_can_be_divided_by_the_number_of_tokens() -> None:
    source = Grey(captions=("a",), labels=(0,), classes=("kitten", "dog"))
    module = KnownModule(likelihood=lambda _, text: -8.0 if text == "kitten" else -6.0)
    plain, per_token = (
        measured(source, ZeroShot(per_token=each), module, can="caption")["zero_shot/top1"].value
        for each in (False, True)
    )
    # The dog by -6 against -8; the kitten by -8 / 7 against -6 / 4 (the end is a token).
    assert (plain, per_token) == (0.0, 1.0)


def test_images_without_labels_are_left_out_and_so_many_are_chosen() -> None:
    source = Grey(captions=("a",) * 4, labels=(0, None, 1, 0), classes=("cat", "dog"))
    module = KnownModule(images=[(1, 0)] * 4, texts=AXES)
    assert measured(source, ZeroShot(), module)["zero_shot/top1"].num == 3
    assert measured(source, ZeroShot(max_images=2), module)["zero_shot/top1"].num == 2


def test_the_probes_test_images_are_classified_where_they_are_given() -> None:
    unlabelled = Grey(captions=("a",) * 2)
    scores = measured(unlabelled, ZeroShot(), KnownModule(images=[(1, 0)] * 4, texts=AXES), probe_test=FOUR)
    assert (scores["zero_shot/top1"].value, scores["zero_shot/top1"].num) == (0.5, 4)


def test_what_does_not_fit_is_reported() -> None:
    assert "neither embeds texts nor writes captions" in misfits(FOUR, ZeroShot(), can="nothing")[0]
    assert "at least two class names" in misfits(Grey(captions=("a",)), ZeroShot())[0]
    assert "have none" in misfits(Grey(captions=("a",), classes=("cat", "dog")), ZeroShot())[0]
    assert misfits(FOUR, ZeroShot()) == []


def test_names_of_classes_that_are_wordnet_ids_are_refused() -> None:
    ids = Grey(captions=("a",) * 3, labels=(0, 1, 2), classes=("n01440764", "n01443537", "shark"))
    (message,) = misfits(ids, ZeroShot())
    assert "2 of 3 class names" in message
    assert "such as 'n01440764': give the classes names (image_folder: by `names`)" in message
    few = Grey(captions=("a",) * 2, labels=(0, 1), classes=("n01440764", "shark"))
    assert misfits(few, ZeroShot()) == []


def test_classes_that_read_alike_are_one_class() -> None:
    # Bytes reads lower case and cleans white space: "Crane" and " crane " are the same prompt.
    source = Grey(captions=("a",) * 4, labels=(0, 2, 1, 2), classes=("Crane", "dog", " crane "))
    module = KnownModule(
        images=[(1, 0.1), (1, 0.2), (0.1, 1), (0.1, 1)], texts={"crane": (1.0, 0.0), "dog": (0.0, 1.0)}
    )
    found = measured(source, ZeroShot(), module)["zero_shot/top1"]
    # Both images of cranes are recognised, whichever of the names they have; the last one is taken for a dog.
    assert (found.value, found.num, found.chance) == (0.75, 4, 0.5)
    card = ZeroShot().protocol(OpenEvaluationData.of(experiment(source, ZeroShot())))
    assert (card["num_classes"], card["counted_as_one_class"]) == (2, [["Crane", " crane "]])


def test_names_that_all_read_alike_are_refused() -> None:
    (message,) = misfits(Grey(captions=("a",) * 2, labels=(0, 1), classes=("Cat", "cat")), ZeroShot())
    assert "the objective reads all of" in message


def test_labels_beyond_the_names_are_named() -> None:
    source = Grey(captions=("a",) * 3, labels=(0, 1, 4), classes=("cat", "dog"))
    with pytest.raises(InvalidLabel, match=r"1 of 3 labels of .* beyond its 2 class names, such as 4 of the image at"):
        measured(source, ZeroShot(), KnownModule(images=[(1, 0)] * 3, texts=AXES))


@pytest.mark.parametrize("templates", [(), ("a cat",), ("{} and {}",)])
def test_templates_have_a_place_for_the_name(templates: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match=r"must be texts with one \{\} each"):
        ZeroShot(templates=templates)
    assert ZeroShot(templates=PROMPTS).templates[0] == "{}"
