"""Samples that hold more: values, masks that take the crop of their image, and views with a crop of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from core.engine.toys import experiment
from torch import Tensor

from aimcore import (
    Augmentation,
    Batch,
    Data,
    Extra,
    InvalidValue,
    NativeResolution,
    OpenSource,
    Sample,
    Source,
    View,
    component,
)
from aimcore.data import evaluation_batches, train_steps
from aimcore.data.extras import missing_extras
from aimcore.data.transforms import CropDraws, render_crop, to_unit
from aimcore.testing.checks.objectives import check_a_dry_run_can_count_it, check_the_batch_is_left_as_it_was
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch

MakeData = Callable[..., Data]
MASK = View("mask", pixels_per_patch=4, of="segments")
SAME = View("same", pixels_per_patch=4)
BOX = Extra("box", torch.zeros(4))
NAME = Extra("name", "a")


@component("drawn_with_masks")
class Drawn(Source):
    """Pictures whose left half is dark and whose right half is light; the mask says 300 and 7 there."""

    size: int = 20
    lacking: tuple[str, ...] = ()
    flaws: Mapping[int, str] = {}

    def open(self) -> OpenDrawn:
        return OpenDrawn(self)


class OpenDrawn(OpenSource):
    def __init__(self, config: Drawn) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.size

    def read(self, index: int) -> Sample:
        image, segments = torch.full((3, 12, 16), 10 + index, dtype=torch.uint8), torch.full((12, 16), 300)
        image[..., 8:], segments[..., 8:] = 200 + index, 7
        extras: dict[str, Any] = {
            "segments": segments, "box": torch.arange(4.0) + index, "name": f"sample {index}",
        }  # fmt: skip
        flaw = self.config.flaws.get(index)
        if flaw == "small mask":
            extras["segments"] = segments[:6]
        elif flaw == "long box":
            extras["box"] = torch.zeros(5)
        for key in self.config.lacking:
            del extras[key]
        return Sample(image=image, identifier=f"drawn/{index}", label=0, extras=extras)


def steps(data: Data, source: Source | None = None, **changes: Any) -> list[Batch]:
    given: dict[str, Any] = {
        "patch_size": 4, "views": [MASK, SAME], "extras": [BOX, NAME], "seed": 3, "num_steps": 3, **changes,
    }  # fmt: skip
    return [batch for step in train_steps(data, (source or Drawn()).open(), **given) for batch in step]


def is_light(unit_BCHW: Tensor) -> Tensor:
    return unit_BCHW.mean(1, keepdim=True) > 0.5


def test_values_are_collated_tensors_stacked_and_others_as_a_tuple(data: MakeData) -> None:
    batch = steps(data())[1]
    indices = [int(name.split("/")[1]) for name in batch.extras["identifiers"]]
    assert batch.extras["name"] == tuple(f"sample {index}" for index in indices)
    assert torch.equal(batch.extras["box"], torch.stack([torch.arange(4.0) + index for index in indices]))
    assert "segments" not in batch.extras
    moved = batch.to(torch.device("meta"))
    assert moved.extras["box"].device.type == "meta"
    assert moved.extras["name"] == batch.extras["name"]


@pytest.mark.parametrize("jitter", [None, (0.2, 0.2, 0.0, 0.0)])
def test_a_mask_takes_the_crop_and_flip_of_its_image_and_keeps_its_numbers(data: MakeData, jitter: Any) -> None:
    augmentation = Augmentation(crop_scale=(0.3, 1.0), color_jitter=jitter)
    for batch in steps(data(augmentation=augmentation)):
        mask = batch.views["mask"]
        assert mask.shape == (8, 1, 8, 8)
        assert mask.dtype == torch.int64
        assert set(mask.unique().tolist()) <= {300, 7}
        # Bicubic borders may fall to either side: pixels next to a border are left out.
        agree = (mask == 7) == is_light(batch.views["same"])
        assert agree.double().mean() > 0.9
        assert agree[..., [0, -1]].double().mean() > 0.9


def test_masks_take_the_middle_in_evaluation(data: MakeData) -> None:
    (batch,) = evaluation_batches(
        data(eval_crop=0.5), Drawn(size=4).open(), patch_size=4, views=[MASK], extras=[NAME], batch_size=4
    )
    assert batch.views["mask"].unique().tolist() == [7, 300]
    assert (batch.views["mask"][0, 0] == torch.tensor([300] * 4 + [7] * 4)).all()
    assert batch.extras["name"] == ("sample 0", "sample 1", "sample 2", "sample 3")


def test_a_crop_of_its_own_is_drawn_by_its_name_and_shared_by_views_of_that_name(data: MakeData) -> None:
    views = [
        View("second", side=8, crop="other", crop_scale=(0.2, 0.5)),
        View("second_mask", side=8, crop="other", crop_scale=(0.2, 0.5), of="segments"),
        View("third", side=8, crop="another"),
    ]
    settings = data()
    batch = steps(settings, views=views)[0]
    draws = CropDraws.of(
        attrs.evolve(settings.augmentation, crop_scale=(0.2, 0.5)), 3, batch.sample_numbers_B.numpy(), name="other"
    )
    source = Drawn().open()
    images = [source.read(int(name.split("/")[1])).image for name in batch.extras["identifiers"]]
    rendered = [render_crop(image, draws.crop(place, 12, 16), 8) for place, image in enumerate(images)]
    assert torch.equal(batch.views["second"], to_unit(rendered))
    assert ((batch.views["second_mask"] == 7) == is_light(batch.views["second"])).double().mean() > 0.9
    assert not torch.equal(batch.views["third"], batch.views["second"])


def test_views_of_their_own_leave_the_images_as_they_are_and_do_not_depend_on_where_a_run_begins(
    data: MakeData, same: Callable[[Batch, Batch], bool]
) -> None:
    own = [View("second", pixels_per_patch=4, crop="other", normalize=True), MASK]
    whole, plain = steps(data(), views=own), steps(data(), views=[])
    assert all(torch.equal(a.images.patches_BNF, b.images.patches_BNF) for a, b in zip(whole, plain, strict=True))
    resumed = steps(data(), views=own, first_step=2, num_steps=1)
    assert same(resumed[0], whole[2])
    halves = [steps(data(), views=own, rank=rank, world_size=2)[0] for rank in (0, 1)]
    for key in ("second", "mask"):
        assert torch.equal(torch.cat([half.views[key] for half in halves]), whole[0].views[key])


def test_workers_give_the_same_masks_values_and_views(data: MakeData, same: Callable[[Batch, Batch], bool]) -> None:
    own = [View("second", pixels_per_patch=4, crop="other"), MASK]
    here, there = (steps(data(num_workers=number), views=own, num_steps=2) for number in (0, 1))
    for one, other in zip(here, there, strict=True):
        assert same(one, other)
        assert torch.equal(one.extras["box"], other.extras["box"])


def test_own_crops_are_drawn_alike_in_every_evaluation(data: MakeData) -> None:
    views = [View("second", side=8, crop="other")]
    first, second = (
        next(evaluation_batches(data(), Drawn(size=6).open(), patch_size=4, views=views, batch_size=6, seed=seed))
        for seed in (1, 2)
    )
    assert torch.equal(first.views["second"], second.views["second"])
    (alone,) = evaluation_batches(data(), Drawn(size=6).open(), patch_size=4, views=views, batch_size=6, indices=[4])
    assert torch.equal(alone.views["second"], first.views["second"][4:5])


def test_at_native_resolution_values_and_crops_of_their_own_are_there(data: MakeData) -> None:
    native = NativeResolution(patches_per_step=64, images_multiple_of=2, log2_area=(2.0, 4.0))
    views = [View("second", side=8, crop="other"), View("mask", side=8, crop="other", of="segments")]
    for batch in steps(data(native=native), views=views):
        number = len(batch.images.grids)
        assert batch.views["second"].shape == (number, 3, 8, 8)
        assert ((batch.views["mask"] == 7) == is_light(batch.views["second"])).double().mean() > 0.9
        assert batch.extras["box"].shape == (number, 4)


def test_samples_with_unfit_extras_are_unreadable_and_named(data: MakeData, warnings: list[str]) -> None:
    source = Drawn(size=8, flaws={2: "small mask", 5: "long box"})
    (batch,) = evaluation_batches(data(), source.open(), patch_size=4, views=[MASK], extras=[BOX, NAME], batch_size=8)
    assert batch.sample_numbers_B.tolist() == [0, 1, 3, 4, 6, 7]
    said = " ".join(warnings)
    assert "its extra 'segments' must be an image [1, 12, 16] of integers" in said
    assert "its extra 'box' must be a tensor [4] float32, got a tensor [5] float32" in said


def test_sources_that_lack_extras_are_named_before_anything_is_read() -> None:
    source = Drawn(lacking=("box", "segments")).open()
    assert list(missing_extras(source, [MASK, SAME], [BOX, NAME])) == ["'box' (they have ['name'])",
                                                                      "'segments' (they have ['name'])"]  # fmt: skip
    assert list(missing_extras(Drawn().open(), [MASK], [BOX])) == []


@component("asking")
class Asking(NextPatch):
    """Asks for views and extras that it does not use."""

    given_views: tuple[Any, ...] = ()

    @property
    def views(self) -> tuple[View, ...]:
        return self.given_views

    @property
    def extras(self) -> tuple[Extra, ...]:
        return (BOX, NAME)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((SAME, SAME), "two views called 'same'"),
        ((View("v"),), "view 'v' needs one size, either pixels_per_patch or side"),
        ((View("v", 4, side=8),), "view 'v' needs one size"),
        ((View("v", 0),), "a pixels_per_patch from 1 to"),
        ((View("v", 4, of="segments", normalize=True),), "nothing is normalised"),
        ((View("v", 4, crop_scale=(0.1, 0.2)),), "no crop of its own"),
        ((View("v", 4, crop="c", crop_scale=(0.5, 0.2)),), "0 < low <= high <= 1"),
        ((View("v", 4, crop="c", crop_scale=(0.1, 0.2)), View("w", 4, crop="c")), "different crop_scale"),
    ],
)
def test_views_that_contradict_themselves_are_refused(views: tuple[View, ...], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        experiment(objective=Asking(head=LinearHead(), given_views=views))


@pytest.mark.parametrize("check", [check_a_dry_run_can_count_it, check_the_batch_is_left_as_it_was])
def test_the_kit_gives_objectives_what_they_ask_for(check: Callable[[Any], None]) -> None:
    check(Asking(head=LinearHead(), given_views=(MASK, View("own", side=8, crop="other"))))


def test_only_one_decoded_sample_is_held_at_a_time(data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    held: list[weakref.ref[Tensor]] = []
    most = [0]
    read = OpenDrawn.read

    def watched(self: OpenDrawn, index: int) -> Sample:
        sample = read(self, index)
        most[0] = max(most[0], sum(one() is not None for one in held))
        held.extend(weakref.ref(tensor) for tensor in (sample.image, sample.extras["segments"]))
        return sample

    monkeypatch.setattr(OpenDrawn, "read", watched)
    steps(data(), views=[MASK, View("second", side=8, crop="other")], num_steps=1)
    assert np.array(most).max() == 0
