"""What pixels are normalised with: what the source brings, what is chosen, and what a recipe records."""

import pytest
from toy_plugins import ToySource

from aimcore import Data, Experiment, InvalidValue
from aimcore.experiment import IMAGENET_MEAN, IMAGENET_STD
from aimcore.recipe import changed, dumps, from_recipe, loads, to_recipe
from aimcore_objectives import NextPatch
from aimcore_sources import BundledEmoji, BundledFashionMNIST
from aimcore_trunks import ViT

FASHION, EMOJI = BundledFashionMNIST(), BundledEmoji()


def data(**fields: object) -> Data:
    return Data(**{"train": FASHION, "validation": EMOJI, "batch_size": 8, "image_size": 28, **fields})


def experiment_on(images: Data) -> Experiment:
    trunk = ViT(width=8, depth=1, num_heads=1, patch_size=7)
    return Experiment(name="one", data=images, trunk=trunk, objective=NextPatch(), num_steps=1)


def test_the_training_source_brings_its_statistics_and_others_take_imagenets() -> None:
    assert (data().mean, data().std) == FASHION.statistics
    assert (data(train=EMOJI).mean, data(train=EMOJI).std) == EMOJI.statistics
    assert (data(train=ToySource()).mean, data(train=ToySource()).std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_what_is_chosen_is_used() -> None:
    assert (data(mean=(0.5,) * 3).mean, data(mean=(0.5,) * 3).std) == ((0.5,) * 3, FASHION.statistics.std)


def test_a_train_of_another_type_is_still_an_error_of_its_own() -> None:
    with pytest.raises(InvalidValue, match="train: "):
        data(train="fashion")


def test_recipes_record_the_numbers_and_older_ones_keep_theirs() -> None:
    experiment = experiment_on(data())
    recipe = to_recipe(experiment)
    assert recipe["experiment"]["data"]["mean"] == [*FASHION.statistics.mean]
    assert loads(dumps(experiment)) == experiment
    recipe["experiment"]["data"] |= {"mean": [*IMAGENET_MEAN], "std": [*IMAGENET_STD]}
    assert from_recipe(recipe).data.mean == IMAGENET_MEAN


def test_another_training_source_on_the_command_line_brings_its_own() -> None:
    experiment = experiment_on(data())
    after = changed(experiment, ["data.train=bundled_emoji"]).data
    assert (after.train, after.mean, after.std) == (EMOJI, *EMOJI.statistics)
    after = changed(experiment, ["data.std=[1, 1, 1]", "data.train=bundled_emoji"]).data
    assert (after.mean, after.std) == (EMOJI.statistics.mean, (1, 1, 1))
    chosen = experiment_on(data(mean=(0.5,) * 3))
    assert changed(chosen, ["data.train=bundled_emoji"]).data.mean == (0.5,) * 3
    assert changed(experiment, ["data.batch_size=9"]).data.mean == FASHION.statistics.mean
