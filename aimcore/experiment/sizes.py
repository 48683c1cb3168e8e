"""Checks of image sizes: trunk and objective must be able to read the images for training and probing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aimcore.contracts import limits
from aimcore.contracts.batches import View
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import Problem
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.objectives import Objective
from aimcore.contracts.probes import Probe
from aimcore.contracts.trunks import Trunk
from aimcore.experiment.data import Data

_SOME_GRID = PatchGrid(16, 16)
"""A grid that shows whether a trunk merges tokens, for images of different grids."""


def training_size_problems(data: Data, trunk: Trunk, objective: Objective) -> Iterable[Problem]:
    """Yield why trunk and objective cannot read images of ``data.image_size``."""
    found = list(_square_problems("data.image_size", data.image_size, trunk))
    yield from found
    if not found:
        side = data.image_size // trunk.patch_size
        grid = PatchGrid(side, side)
        yield from (Problem("trunk", text) for text in trunk.problems_with(grid))
        yield from (Problem("objective", text) for text in objective.problems_with(grid))
        if not objective.any_grid:
            who = f"objective {objective.name!r} treats every token as a patch: use one that pools tokens, or a trunk"
            yield from (Problem("trunk", f"{text}, and {who} that keeps the grid") for text in _other_grid(trunk, grid))


def view_problems(objective: Objective) -> Iterable[Problem]:
    """Yield views of ``objective`` that contradict themselves or each other."""
    keys = [view.key for view in objective.views]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        yield Problem("objective", f"asks for two views called {key!r}")
    for view in objective.views:
        if (view.pixels_per_patch is None) == (view.side is None):
            yield Problem("objective", f"view {view.key!r} needs one size, either pixels_per_patch or side")
        for name, size in (("pixels_per_patch", view.pixels_per_patch), ("side", view.side)):
            if size is not None:
                at = f"view {view.key!r} must have a {name} from 1 to {limits.IMAGE_SIDE}, got {size}"
                yield from () if 1 <= size <= limits.IMAGE_SIDE else (Problem("objective", at),)
        if view.of is not None and view.normalize:
            yield Problem("objective", f"view {view.key!r} shows integers of extra {view.of!r}: nothing is normalised")
        yield from _crop_scale_problems(view)
    scales = {view.crop: view.crop_scale for view in objective.views}
    for view in objective.views:
        if view.crop_scale != scales[view.crop]:
            yield Problem(
                "objective", f"views of the crop {view.crop!r} have different crop_scale: they share one crop"
            )


def _crop_scale_problems(view: View) -> Iterable[Problem]:
    if view.crop_scale is None:
        return
    low, high = view.crop_scale
    if view.crop is None:
        yield Problem("objective", f"view {view.key!r} has a crop_scale, and no crop of its own to use it: name one")
    elif not 0 < low <= high <= 1:
        yield Problem("objective", f"view {view.key!r} must have a crop_scale 0 < low <= high <= 1, got {(low, high)}")


def native_size_problems(data: Data, trunk: Trunk, objective: Objective) -> Iterable[Problem]:
    """Yield problems of ``data.native``: the trunk must read any grid, and the smallest grid must have a target."""
    if data.native is None:
        return
    yield from _requires_native("data.native", trunk)
    own_grids = " at native resolution every token must stand for a patch: use a trunk that keeps the grid"
    yield from (Problem("data.native", f"{text};{own_grids}") for text in _other_grid(trunk, _SOME_GRID))
    if not objective.mixed_grids:
        text = f"gives every image a grid of its own, and objective {objective.name!r} needs one grid for all images"
        yield Problem("data.native", f"{text}: set data.native to null, or use another objective")
    keys = sorted(view.key for view in objective.views if view.crop is None or view.side is None)
    if keys:
        yield Problem(
            "data.native",
            f"gives every image a grid of its own, so that views in proportion to it cannot be stacked, and the "
            f"objective asks for {keys}: use a target without them, or views with a crop of their own (View.crop) of "
            "a fixed size in pixels (View.side)",
        )
    found = objective.problems_with(PatchGrid(1, data.native.smallest_length))
    yield from (Problem("data.native.log2_area", f"at the smallest area, {text}") for text in found)


def probe_size_problems(
    data: Data, trunk: Trunk, probes: Sequence[Probe], *, image_sizes: Sequence[int], native_area: int | None
) -> Iterable[Problem]:
    """Yield problems of the additional image sizes for probes."""
    known = {data.image_size}
    for size in image_sizes:
        found = list(_square_problems("probe_image_sizes", size, trunk))
        yield from found
        if not found:
            side = size // trunk.patch_size
            yield from (Problem("probe_image_sizes", text) for text in trunk.problems_with(PatchGrid(side, side)))
        if size in known:
            yield Problem("probe_image_sizes", f"each size once, and not data.image_size, got {size} again")
        known.add(size)
    if native_area is not None:
        yield from at_least("probe_native_area", native_area, 1, limits.PATCHES)
        yield from _requires_native("probe_native_area", trunk)
        yield from _probes_blind_to_padding(data, probes)
        for probe in probes:
            if probe.reads == "tokens":
                who = f"probe {probe.name!r} reads tokens, which have the patches' grid at native resolution only in a"
                texts = _other_grid(trunk, _SOME_GRID)
                yield from (Problem("probe_native_area", f"{text}, and {who} trunk that keeps it") for text in texts)


def extra_token_problems(trunk: Trunk, probes: Sequence[Probe]) -> Iterable[Problem]:
    """Yield probes that read a class token or other extra tokens if the trunk has none."""
    for number, probe in enumerate(probes):
        if trunk.num_extra == 0 and (probe.reads == "extra" or probe.pooling != "mean"):
            kind = "extra tokens" if probe.reads == "extra" else "a class token"
            yield Problem(
                f"probes.{number}",
                f"probe {probe.name!r} reads {kind}, and trunk {trunk.name!r} has none (its num_extra is 0): use "
                "another trunk, or pool over patches (pool='mean')",
            )


def _other_grid(trunk: Trunk, grid: PatchGrid) -> Iterable[str]:
    """Yield a message if the tokens of images of ``grid`` have another grid."""
    found = trunk.output_grid(grid)
    if found != grid:
        yield (f"{trunk.name!r} makes {found.rows} x {found.columns} tokens of {grid.rows} x {grid.columns} patches")


def _square_problems(path: str, size: int, trunk: Trunk) -> Iterable[Problem]:
    patch = trunk.patch_size
    if size < 1 or size % patch:
        yield Problem(path, f"must be a multiple of the trunk's patch size {patch}, got {size}")
    elif size > limits.IMAGE_SIDE or (size // patch) ** 2 > limits.PATCHES:
        yield Problem(
            path,
            f"must be at most {limits.IMAGE_SIDE} px and {limits.PATCHES} patches, got {size} px and "
            f"{(size // patch) ** 2} patches of {patch} px",
        )


def _probes_blind_to_padding(data: Data, probes: Sequence[Probe]) -> Iterable[Problem]:
    """Yield probes of tokens that cannot distinguish masked padding from an image."""
    if data.native is None or data.native.padding == "image":
        return
    for probe in probes:
        if probe.reads == "tokens" and not probe.reads_padding:
            yield Problem(
                "probe_native_area",
                f"probe {probe.name!r} reads tokens, and cannot distinguish masked padding from an image",
            )


def _requires_native(path: str, trunk: Trunk) -> Iterable[Problem]:
    if "native" not in trunk.capabilities:
        yield Problem(
            path,
            f"needs a trunk that reads images of any grid, and {trunk.name!r} as it is set cannot: use one with fixed "
            "positions (ViT: positions='sincos')",
        )
