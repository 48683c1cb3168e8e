"""Sizes are checked when an experiment is made: those it trains on, and those it is probed at."""

from __future__ import annotations

from typing import Any

import pytest
from core.engine.toys import experiment

from aimcore import Data, Experiment, InvalidValue, NativeResolution, Target, View, component
from aimcore_heads import LinearHead
from aimcore_objectives import DiscreteVAE, NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_targets import NormalizedPixels
from aimcore_trunks import ViT

ANY_GRID = ViT(width=16, depth=1, num_heads=2, patch_size=4)
ONE_GRID = ViT(width=16, depth=1, num_heads=2, patch_size=4, positions="learned", grid=(4, 4))
INTERPOLATING = ViT(width=16, depth=1, num_heads=2, patch_size=4, positions="learned", grid=(4, 4), interpolate=True)


@component("viewing")
class TargetWithViews(NormalizedPixels):
    """Asks for a view."""

    @property
    def views(self) -> tuple[View, ...]:
        return (View(key="small", pixels_per_patch=2),)


def make(*, native: NativeResolution | None = None, target: Target | None = None, **changes: Any) -> Experiment:
    source = BundledFashionMNIST()
    settings: dict[str, Any] = {
        "trunk": ANY_GRID,
        "objective": NextPatch(head=LinearHead(), target=target or NormalizedPixels(), prefix=None),
        "data": Data(train=source, validation=source, batch_size=6, image_size=16, native=native),
    }
    return experiment(**{**settings, **changes})


NATIVE = NativeResolution(patches_per_step=256, log2_area=(3, 5))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"native": NATIVE, "trunk": ONE_GRID}, "data.native: needs a trunk that reads images of any grid"),
        ({"native": NATIVE, "trunk": INTERPOLATING}, "data.native: needs a trunk that reads images of any grid"),
        (
            {"native": NATIVE, "target": TargetWithViews()},
            r"data.native: gives every image a grid of its own.*\['small'\]",
        ),
        (
            {"native": NATIVE, "objective": DiscreteVAE()},
            "data.native: .*objective 'dvae' needs one grid for all images",
        ),
        (
            {"native": NATIVE, "objective": NextPatch(head=LinearHead(), prefix=8)},
            "data.native.log2_area: at the smallest area, nothing is left to predict: 8 patches, of which 8 are given",
        ),
        ({"native": NATIVE, "accumulation_steps": 3}, r"accumulation_steps: must divide .*images_multiple_of \(8\)"),
        ({"probe_image_sizes": (24, 18)}, "probe_image_sizes: must be a multiple of the trunk's patch size 4, got 18"),
        ({"probe_image_sizes": (24, 24)}, "probe_image_sizes: each size once, and not data.image_size, got 24 again"),
        ({"probe_image_sizes": (16,)}, "probe_image_sizes: each size once, and not data.image_size, got 16 again"),
        ({"probe_image_sizes": (24,), "trunk": ONE_GRID}, "probe_image_sizes: its learned positions are for 4 x 4"),
        (
            {"probe_native_area": 20, "trunk": ONE_GRID},
            "probe_native_area: needs a trunk that reads images of any grid",
        ),
        ({"probe_native_area": 0}, "probe_native_area: must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_read_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidValue, match=match):
        make(**changes)


def test_masked_padding_can_leave_half_of_the_smallest_area() -> None:
    native = NativeResolution(patches_per_step=256, log2_area=(3, 5), padding="masked")
    assert (NATIVE.smallest_length, native.smallest_length) == (8, 4)
    with pytest.raises(InvalidValue, match="4 patches, of which 4 are given"):
        make(native=native, objective=NextPatch(head=LinearHead(), prefix=4))


def test_the_batch_size_means_nothing_at_native_resolution() -> None:
    made = make(native=NATIVE, accumulation_steps=4)
    assert made.data.batch_size % made.engine.accumulation_steps
    with pytest.raises(InvalidValue, match=r"must divide data\.batch_size"):
        make(accumulation_steps=4)


def test_interpolated_positions_read_further_square_sizes() -> None:
    assert make(trunk=INTERPOLATING, probe_image_sizes=(24, 32)).probe_image_sizes == (24, 32)
