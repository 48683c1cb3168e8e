"""Whether trunk and objective can do with the sizes of images that an experiment trains on and probes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aimcore import limits
from aimcore.component import Problem, at_least

if TYPE_CHECKING:
    from aimcore.experiment.run import Experiment


def size_problems(experiment: Experiment) -> Iterable[Problem]:
    """Yield what is wrong with any size."""
    yield from _square(experiment, "data.image_size", experiment.data.image_size, trains=True)
    yield from _native(experiment)
    known = {experiment.data.image_size}
    for size in experiment.probe_image_sizes:
        yield from _square(experiment, "probe_image_sizes", size, trains=False)
        if size in known:
            yield Problem("probe_image_sizes", f"each size once, and not data.image_size, got {size} again")
        known.add(size)
    if experiment.probe_native_area is not None:
        yield from at_least("probe_native_area", experiment.probe_native_area, 1, limits.PATCHES)
        yield from _needs_native(experiment, "probe_native_area")
        yield from _blind_probes(experiment)


def _square(experiment: Experiment, path: str, size: int, *, trains: bool) -> Iterable[Problem]:
    from aimcore.values import PatchGrid  # here, because it loads torch

    patch = experiment.trunk.patch_size
    if size < 1 or size % patch:
        yield Problem(path, f"must be a multiple of the trunk's patch size {patch}, got {size}")
        return
    if size > limits.IMAGE_SIDE or (size // patch) ** 2 > limits.PATCHES:
        yield Problem(
            path,
            f"must be at most {limits.IMAGE_SIDE} px and {limits.PATCHES} patches, got {size} px and "
            f"{(size // patch) ** 2} patches of {patch} px",
        )
        return
    grid = PatchGrid(size // patch, size // patch)
    where = "trunk" if trains else path
    yield from (Problem(where, text) for text in experiment.trunk.problems_with(grid))
    if trains:
        yield from (Problem("objective", text) for text in experiment.objective.problems_with(grid))


def _native(experiment: Experiment) -> Iterable[Problem]:
    """Every area must do: the trunk reads any, and the smallest leaves something to learn from."""
    from aimcore.values import PatchGrid

    native = experiment.data.native
    if native is None:
        return
    yield from _needs_native(experiment, "data.native")
    if native.images_multiple_of % experiment.engine.accumulation_steps:
        multiple = native.images_multiple_of
        yield Problem("engine.accumulation_steps", f"must divide data.native.images_multiple_of ({multiple})")
    if experiment.objective.views:
        keys = sorted(view.key for view in experiment.objective.views)
        yield Problem(
            "data.native", f"has no extra views, and the objective asks for {keys}: use a target without them"
        )
    smallest = PatchGrid(1, native.smallest_length)
    found = experiment.objective.problems_with(smallest)
    yield from (Problem("data.native.log2_area", f"at the smallest area, {text}") for text in found)


def _blind_probes(experiment: Experiment) -> Iterable[Problem]:
    """Where padding is masked, probes of tokens must know it from an image."""
    if experiment.data.native is None or experiment.data.native.padding == "image":
        return
    for probe in experiment.probes:
        if probe.reads == "tokens" and not probe.reads_padding:
            yield Problem(
                "probe_native_area", f"probe {probe.name!r} reads tokens, and cannot tell masked padding from an image"
            )


def _needs_native(experiment: Experiment, path: str) -> Iterable[Problem]:
    if "native" not in experiment.trunk.can:
        yield Problem(
            path,
            f"needs a trunk that reads images of any grid, and {experiment.trunk.name!r} as it is set cannot: use one "
            "with fixed positions (ViT: positions='sincos')",
        )
