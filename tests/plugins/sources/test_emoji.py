import hashlib
import json
import pickle
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from aimcore import InvalidValue
from aimcore.contracts.sources import OpenSource
from aimcore_sources import BundledEmoji
from aimcore_sources.emoji import is_test
from aimcore_sources.emoji import trimmed as cut_off

ASSETS = resources.files("aimcore_sources") / "assets"
PIXELS = {
    "google": "121c7ebb371d52e67f6e97ff8417e993f1a9970f7fabfd339a81100ed9c7cd53",
    "twitter": "6c59dc1fcb704f0652970240e4db9dc2a09d83884d151868714b03a014a26f13",
}


@pytest.fixture(scope="module")
def train() -> OpenSource:
    return BundledEmoji(split="train").open()


@pytest.fixture(scope="module")
def test() -> OpenSource:
    return BundledEmoji(split="test").open()


@pytest.fixture(scope="module")
def everything() -> OpenSource:
    return BundledEmoji(split="all", labels="subcategory").open()


def samples(source: OpenSource) -> list:
    return [source.read(index) for index in range(len(source))]


@pytest.mark.parametrize("style", ["google", "twitter"])
def test_the_pictures_are_always_the_same(style: str) -> None:
    with (ASSETS / f"emoji_{style}.webp").open("rb") as file, Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == PIXELS[style]


def test_a_picture_is_small_and_on_white(test: OpenSource) -> None:
    images = torch.stack([sample.image for sample in samples(test)])
    assert (images.shape[1:], images.dtype) == ((3, 32, 32), torch.uint8)
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    # Squares, keycaps and some flags fill their corners.
    assert (corners == 255).all(1).float().mean() > 0.8
    assert (images.flatten(1).float().std(1) > 5).all()


def test_the_parts_share_no_concept(train: OpenSource, test: OpenSource) -> None:
    seen, held_out = ({sample.extras["concept"] for sample in samples(source)} for source in (train, test))
    assert seen.isdisjoint(held_out)
    assert (len(seen), len(held_out)) == (1338, 335)
    assert len(train) + len(test) == 7562


def test_no_test_picture_looks_like_a_training_picture(train: OpenSource, test: OpenSource) -> None:
    seen_nF, held_out_mF = (
        torch.stack([sample.image for sample in samples(source)]).flatten(1).float() for source in (train, test)
    )
    distances_mn = (held_out_mF**2).sum(1, keepdim=True) + (seen_nF**2).sum(1) - 2 * held_out_mF @ seen_nF.T
    nearest = int(distances_mn.argmin())
    pair = [test.read(nearest // len(train)).identifier, train.read(nearest % len(train)).identifier]
    # Mean square of grey levels; the nearest two are a hand with one finger up and one with two, 67 apart.
    assert distances_mn.min() / seen_nF.shape[1] > 50, pair


def test_tones_genders_and_styles_of_an_emoji_are_one_concept(everything: OpenSource) -> None:
    found: dict[str, set[str]] = {}
    for sample in samples(everything):
        found.setdefault(sample.extras["concept"], set()).add(sample.identifier)
    # Woman, man and person farming, in two styles, each yellow and in five skin tones.
    assert len(found["person 1f33e"]) == 3 * 2 * 6
    assert {"google/1f9d1-200d-1f33e", "twitter/1f469-1f3ff-200d-1f33e"} <= found["person 1f33e"]
    # Runners, to the right or left.
    assert len(found["1f3c3"]) == 6 * 2 * 6
    # Shaking the head, to the sides or up and down, and not; flags with one drawing.
    assert len(found["1f642"]) == 3 * 2
    assert {"google/1f1eb-1f1f7", "google/1f1e8-1f1f5", "google/1f1f2-1f1eb"} <= found["1f1eb-1f1f7"]
    # Families without tones; breast-feeding, and three people feeding a baby; princess, prince and crowned person.
    assert [len(found[concept]) for concept in ("family", "person 1f37c", "royalty")] == [30 * 2, 4 * 12, 3 * 12]


def test_both_styles_of_an_emoji_stand_together(test: OpenSource) -> None:
    one, other = test.read(10), test.read(11)
    assert (one.identifier.split("/")[1], one.captions, one.label) == (
        other.identifier.split("/")[1], other.captions, other.label,
    )  # fmt: skip
    assert [one.extras["style"], other.extras["style"]] == ["google", "twitter"]


def test_captions_are_names_in_lower_case_with_their_skin_tone(everything: OpenSource) -> None:
    by_name = {sample.identifier: sample for sample in samples(everything)}
    assert by_name["google/1f44b-1f3ff"].captions == {
        "name": ("waving hand sign, dark skin tone",), "short": ("wave, dark skin tone",),
    }  # fmt: skip
    couple = by_name["twitter/1f9d1-1f3fb-200d-1f91d-200d-1f9d1-1f3fd"]
    assert couple.captions["name"] == ("people holding hands, light and medium skin tones",)
    assert by_name["google/1f1e8-1f1ee"].captions["name"] == ("côte d'ivoire flag",)
    texts = [text for sample in by_name.values() for kind in sample.captions.values() for text in kind]
    assert all(text == " ".join(text.lower().split()) for text in texts)


def test_a_name_means_one_emoji(everything: OpenSource) -> None:
    names = [s.captions["name"][0] for s in samples(everything) if s.extras["style"] == "google"]
    assert len(set(names)) == len(names) == 3781


def test_labels_are_categories_or_subcategories(test: OpenSource, everything: OpenSource) -> None:
    assert test.class_names == (
        "activities", "animals & nature", "flags", "food & drink", "objects", "people & body", "smileys & emotion",
        "symbols", "travel & places",
    )  # fmt: skip
    assert {test.label(index) for index in range(len(test))} == set(range(9))
    sample = everything.read(0)
    assert everything.class_names[sample.label] == sample.extras["subcategory"] == "face-smiling"
    assert len(everything.class_names) == 98


def test_one_style_and_no_skin_tones_may_be_asked_for() -> None:
    source = BundledEmoji(split="test", styles=("twitter",), skin_tones=False).open()
    found = samples(source)
    assert len(found) == 410
    assert {sample.extras["style"] for sample in found} == {"twitter"}
    assert {sample.extras["skin_tone"] for sample in found} == {""}


def test_the_split_depends_on_the_concept_alone() -> None:
    assert [is_test(concept) for concept in ("1f9ce", "holding hands", "family", "1f600")] == [True, True, True, False]


def test_the_sheets_are_read_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = BundledEmoji(split="test").open().read(1)
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(json, "loads", None)
    assert torch.equal(BundledEmoji(split="test").open().read(1).image, first.image)


def test_writing_to_a_picture_changes_no_other_source() -> None:
    before = BundledEmoji(split="test").open().read(0).image.clone()
    BundledEmoji(split="test").open().read(0).image.fill_(7)
    assert torch.equal(BundledEmoji(split="test").open().read(0).image, before)


def test_it_travels_to_workers_as_a_recipe_not_as_data(test: OpenSource) -> None:
    sent = pickle.dumps(test)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).read(7).image, test.read(7).image)


@pytest.mark.parametrize("styles", [(), ("google", "google")])
def test_styles_must_be_named_once(styles: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match="styles: name 'google', 'twitter' or both, each once"):
        BundledEmoji(styles=styles)


def test_licences_and_the_script_stand_beside_the_pictures_and_they_are_small() -> None:
    notice = (ASSETS / "EMOJI_LICENSES.md").read_text()
    assert all(
        words in notice for words in ("Apache License 2.0", "CC-BY 4.0", "Twitter, Inc.", "Changes", "Cal Henderson")
    )
    assert "Apache License" in (ASSETS / "APACHE-2.0.txt").read_text()
    assert (ASSETS / "make_emoji.py").is_file()
    assert (
        sum(len((ASSETS / name).read_bytes()) for name in ("emoji.json", "emoji_google.webp", "emoji_twitter.webp"))
        < 5e6
    )


def test_trimmed_pictures_have_many_aspect_ratios_and_lose_nothing_but_white(test: OpenSource) -> None:
    trimmed = BundledEmoji(split="test", trim=True).open()
    shapes = {tuple(trimmed.read(index).image.shape[1:]) for index in range(0, len(trimmed), 5)}
    assert len(shapes) > 30
    assert max(max(shape) for shape in shapes) <= 32
    for index in range(40):
        whole, cut = test.read(index).image, trimmed.read(index).image
        assert (whole < 250).any(0).sum() == (cut < 250).any(0).sum()


def test_an_empty_picture_is_left_as_it_is() -> None:
    white = np.full((3, 8, 8), 255, dtype=np.uint8)
    assert cut_off(white) is white
    white[:, 2:4, 3:7] = 0
    assert cut_off(white).shape == (3, 2, 4)


@pytest.mark.parametrize("trim", [False, True])
def test_statistics_are_those_of_the_training_part(trim: bool) -> None:
    config = BundledEmoji(split="train", trim=trim)
    pixels_C = np.concatenate([one.image.numpy().reshape(3, -1) for one in samples(config.open())], axis=1) / 255
    assert np.allclose(config.statistics.mean, pixels_C.mean(1), atol=5e-5, rtol=0)
    assert np.allclose(config.statistics.std, pixels_C.std(1), atol=5e-5, rtol=0)
