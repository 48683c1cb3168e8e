from collections import Counter
from collections.abc import Callable, Mapping

import attrs
import pytest
import torch
from toy_plugins import toy_experiment, toy_plugins

from aimcore import Batch, Data, InvalidValue, OpenSource, Sample, UnreadableSample
from aimcore.contracts.errors import TooManyUnreadable
from aimcore.data import Captions, evaluation_batches, train_steps
from aimcore.data.captions import has_captions
from aimcore.recipe import dumps, loads
from aimcore_tokenizers import Bytes

MakeData = Callable[..., Data]
Same = Callable[[Batch, Batch], bool]
TEXT = (Bytes(), 12)
MANY = {"alt": ("one", "two"), "synthetic": ("three",)}


class Captioned(OpenSource):
    """Black pictures whose captions name them; those in ``without`` have none."""

    def __init__(self, size: int, without: tuple[int, ...] = (), broken: tuple[int, ...] = ()) -> None:
        self.size, self.without, self.broken = size, without, broken

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> Sample:
        if index in self.broken:
            raise UnreadableSample(f"{index}", "broken")
        texts = {} if index in self.without else {"alt": (f"a{index}", f"b{index}"), "synthetic": (f"s{index}",)}
        return Sample(image=torch.zeros(3, 8, 8, dtype=torch.uint8), identifier=f"{index}", captions=texts)


def sample(captions: Mapping[str, tuple[str, ...]]) -> Sample:
    return Sample(image=torch.zeros(3, 8, 8, dtype=torch.uint8), identifier="x", captions=captions)


def drawn(captions: Mapping[str, tuple[str, ...]], weights: Mapping[str, float] | None, count: int) -> Counter[str]:
    chooser = Captions(*TEXT, weights=weights)
    return Counter(chooser.drawn(sample(captions), 7, number) for number in range(count))


def test_kinds_are_drawn_alike_and_captions_within_a_kind_too() -> None:
    counts = drawn(MANY, None, 4000)
    # 1/4, 1/4, 1/2; standard deviations 27, 27, 32: four of them are passed once in 10,000 draws or so.
    assert counts.keys() == {"one", "two", "three"}
    assert all(abs(counts[text] - mean) < 130 for text, mean in (("one", 1000), ("two", 1000), ("three", 2000)))


def test_weights_say_how_often_a_kind_is_drawn() -> None:
    counts = drawn(MANY, {"synthetic": 3, "alt": 1, "other": 9}, 4000)
    assert abs(counts["three"] - 3000) < 110
    assert drawn(MANY, {"alt": 0, "synthetic": 0.1}, 50) == {"three": 50}


def test_the_share_of_a_kind_that_a_sample_lacks_falls_to_the_others() -> None:
    assert drawn({"alt": ("one",), "synthetic": ("  ",)}, {"alt": 1, "synthetic": 99}, 50) == {"one": 50}


def test_a_draw_depends_on_neither_the_order_of_kinds_nor_other_draws() -> None:
    chooser = Captions(*TEXT)
    backwards = dict(reversed(MANY.items()))
    forth = [chooser.drawn(sample(MANY), 7, number) for number in range(40)]
    back = [chooser.drawn(sample(backwards), 7, number) for number in reversed(range(40))]
    assert forth == back[::-1]
    assert [chooser.drawn(sample(MANY), 8, number) for number in range(40)] != forth


def test_evaluation_takes_the_first_caption_of_the_first_wanted_kind(data: MakeData) -> None:
    (batch,) = evaluation_batches(data(), Captioned(3), patch_size=4, text=TEXT, batch_size=4)
    assert batch.extras["captions"] == ("a0", "a1", "a2")
    settings = data(caption_weights={"synthetic": 1.0})
    (batch,) = evaluation_batches(settings, Captioned(3), patch_size=4, text=TEXT, batch_size=4)
    assert batch.extras["captions"] == ("s0", "s1", "s2")


def test_a_batch_holds_the_ids_of_its_captions(data: MakeData) -> None:
    ((batch,),) = train_steps(data(), Captioned(20), patch_size=4, text=TEXT, seed=3, num_steps=1)
    assert batch.text is not None
    decoded = tuple(Bytes().decode(row) for row in batch.text.ids_BT.tolist())
    assert decoded == batch.extras["captions"]
    assert all(text[1:] == name for text, name in zip(decoded, batch.extras["identifiers"], strict=True))


def test_without_a_request_there_is_no_text(data: MakeData) -> None:
    ((batch,),) = train_steps(data(), Captioned(20, without=(1,)), patch_size=4, seed=3, num_steps=1)
    assert batch.text is None
    assert "captions" not in batch.extras


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_reads_the_same_captions(data: MakeData, same: Same, num_workers: int) -> None:
    from aimcore_sources import BundledEmoji

    source = BundledEmoji(split="test").open()
    settings = {"patch_size": 4, "text": TEXT, "seed": 5}
    through = [batch for step in train_steps(data(), source, num_steps=5, **settings) for batch in step]
    steps = train_steps(data(num_workers=num_workers), source, first_step=2, num_steps=3, **settings)
    resumed = [batch for step in steps for batch in step]
    assert all(batch.text is not None for batch in resumed)
    assert all(same(one, other) for one, other in zip(through[2:], resumed, strict=True))


def test_a_sample_reads_other_captions_in_other_epochs(data: MakeData) -> None:
    steps = train_steps(data(batch_size=4), Captioned(4), patch_size=4, text=TEXT, seed=0, num_steps=12)
    read = Counter(caption for step in steps for batch in step for caption in batch.extras["captions"])
    assert set(read) == {f"{kind}{index}" for index in range(4) for kind in "abs"}


def test_training_draws_another_sample_for_one_without_a_caption(data: MakeData, warnings: list[str]) -> None:
    source = Captioned(8, without=(2, 5))
    steps = list(train_steps(data(), source, patch_size=4, text=TEXT, seed=0, num_steps=2))
    names = {name for step in steps for batch in step for name in batch.extras["identifiers"]}
    assert names <= {"0", "1", "3", "4", "6", "7"}
    assert [line.split(";")[0] for line in sorted(warnings)] == [
        "cannot read 2: it has no caption of any kind (it has [])",
        "cannot read 5: it has no caption of any kind (it has [])",
    ]


class HalfCharacters(Captioned):
    """As its base; caption "a2" ends within an emoji."""

    def read(self, index: int) -> Sample:
        read = super().read(index)
        return attrs.evolve(read, captions={"alt": ("a \ud83d",), "synthetic": ("s2",)}) if index == 2 else read


def test_a_sample_with_half_a_character_is_unreadable_and_named(data: MakeData, warnings: list[str]) -> None:
    source = HalfCharacters(8)
    steps = list(train_steps(data(), source, patch_size=4, text=TEXT, seed=0, num_steps=2))
    assert "2" not in {name for step in steps for batch in step for name in batch.extras["identifiers"]}
    assert [line.split(";")[0] for line in warnings] == [
        "cannot read 2: in its caption of kind 'alt', character 2 is the lone surrogate U+D83D, half of a character"
    ]
    batches = list(evaluation_batches(data(), source, patch_size=4, text=TEXT, batch_size=4))
    assert [batch.sample_numbers_B.tolist() for batch in batches] == [[0, 1, 3], [4, 5, 6, 7]]
    assert has_captions(source, None)
    # The other kind is sound.
    settings = data(caption_weights={"synthetic": 1.0})
    batches = list(evaluation_batches(settings, source, patch_size=4, text=TEXT, batch_size=8))
    assert len(batches[0].sample_numbers_B) == 8


def test_evaluation_leaves_it_out(data: MakeData) -> None:
    source = Captioned(6, without=(2, 3))
    batches = list(evaluation_batches(data(), source, patch_size=4, text=TEXT, batch_size=2))
    assert [batch.sample_numbers_B.tolist() for batch in batches] == [[0, 1], [4, 5]]


def test_more_than_the_limit_without_a_caption_stop_the_run(data: MakeData) -> None:
    settings = data(max_unreadable=1, caption_weights={"long": 1.0})
    with pytest.raises(TooManyUnreadable, match=r"no caption of 'long' \(it has \['alt', 'synthetic'\]\)"):
        list(train_steps(settings, Captioned(8), patch_size=4, text=TEXT, seed=0, num_steps=1))


def test_the_error_says_how_many_lack_a_caption(data: MakeData) -> None:
    source = Captioned(8, without=(2, 5, 6), broken=(1,))
    with pytest.raises(TooManyUnreadable, match=r"^4 of 8 images read could not be read \(3 have no wanted caption\),"):
        list(evaluation_batches(data(max_unreadable=3), source, patch_size=4, text=TEXT, batch_size=8))


def test_whether_a_source_has_captions_is_reported_from_its_first_samples() -> None:
    assert has_captions(Captioned(50, without=tuple(range(15))), None)
    assert not has_captions(Captioned(50, without=tuple(range(50)), broken=(0, 1)), None)
    assert not has_captions(Captioned(50), {"long": 1.0})
    assert has_captions(Captioned(2, broken=(0, 1)), None)


@pytest.mark.parametrize("weights", [{}, {"alt": 0.0}, {"alt": 1.0, "synthetic": -1.0}])
def test_weights_that_choose_nothing_are_refused(data: MakeData, weights: Mapping[str, float]) -> None:
    with pytest.raises(InvalidValue, match="caption_weights: must be null or weights of 0 and more, not all 0"):
        data(caption_weights=weights)


def test_caption_weights_are_part_of_the_recipe() -> None:
    import attrs

    toys = toy_plugins()
    experiment = toy_experiment()
    weighted = attrs.evolve(experiment, data=attrs.evolve(experiment.data, caption_weights={"alt": 2.0}))
    assert loads(dumps(weighted, toys), toys) == weighted
