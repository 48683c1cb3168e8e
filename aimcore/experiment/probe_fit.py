"""Which probes an experiment can have: what they need of its data and its other settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aimcore.contracts.errors import Problem
from aimcore.contracts.probes import Probe
from aimcore.experiment.data import Data


def can_choose_layers(probe: Probe) -> bool:
    """Return whether every block can be probed with ``probe`` to choose among them.

    It must hold images out, read tokens of patches, which blocks have, and train on features that can be stored.
    """
    return probe.holds_out and probe.reads != "extra" and probe.pooling == "mean" and probe.augmentation is None


def every_layer_problems(probes: Sequence[Probe]) -> Iterable[Problem]:
    """Yield a problem if no probe can choose among the blocks."""
    if not any(map(can_choose_layers, probes)):
        yield Problem(
            "probe_every_layer",
            "needs a probe that holds images out to choose blocks on, reads tokens of patches, and does not augment "
            f"its images; got {[probe.name for probe in probes] or 'no probe'}",
        )


def augmentation_problems(data: Data, probes: Sequence[Probe], native_area: int | None) -> Iterable[Problem]:
    """Yield probes whose augmentation the experiment's images cannot have."""
    for place, probe in enumerate(probes):
        if probe.augmentation is None:
            continue
        path = f"probes.{place}.augmentation"
        if native_area is not None:
            yield Problem(path, f"must be null with probe_native_area, as crops are square; got probe {probe.name!r}")
        if probe.augmentation.changes_colors and len(data.mean) not in (1, 3):
            yield Problem(path, f"changes colours, which images of {len(data.mean)} channels do not have")
