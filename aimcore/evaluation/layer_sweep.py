"""Probes of every block of a trunk: the best one, and the best window of consecutive blocks.

AIM's best features are not those of its last blocks (arXiv:2401.08541, Table 7 and Figure 10). The trunk reads the
images once, and the raw outputs of every block are written to zarr as they come. Then the blocks are probed one after
the other, so that memory holds the features of one block at most, or pieces of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import attrs
from loguru import logger

from aimcore.contracts.probes import Probe
from aimcore.engine.distributed import any_rank, on_first_rank, rank_and_world_size
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.evaluation.feature_provider import FeatureProvider, FeatureRequest
from aimcore.evaluation.feature_sources import FrozenTrunk
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.evaluation.outcomes import Outcome, fitted_outcome
from aimcore.evaluation.stored_features import StoredTable
from aimcore.experiment.probe_fit import can_choose_layers

WINDOW = 6
"""Number of consecutive blocks that are averaged, as in the released probes of arXiv:2401.08541."""
BATCH_BYTES = 256 * 2**20
"""Approximate size of the outputs of all blocks for one batch."""

Chosen = Literal["best_layer", "last_six", "best_window"]


@attrs.frozen
class LayerOutcome:
    """One set of blocks whose raw outputs were averaged and probed."""

    layers: tuple[int, ...]
    held_out_top1: float
    outcome: Outcome


@attrs.frozen
class Sweep:
    """The outcomes of one probe on every block, and on every window of consecutive blocks."""

    blocks: tuple[LayerOutcome, ...]
    windows: tuple[LayerOutcome, ...]
    """The last one is the window of the last blocks."""

    def chosen(self) -> Mapping[Chosen, tuple[LayerOutcome, tuple[LayerOutcome, ...]]]:
        """Return the scores that are reported, each with the candidates that it was chosen from.

        Blocks and windows are chosen on held-out training images; of equally good ones the first is chosen.
        """
        return {
            "best_layer": (max(self.blocks, key=_held_out), self.blocks),
            "last_six": (self.windows[-1], ()),
            "best_window": (max(self.windows, key=_held_out), self.windows),
        }


def _held_out(one: LayerOutcome) -> float:
    return one.held_out_top1


def windows_of(depth: int) -> Sequence[tuple[int, ...]]:
    """Return all windows of :data:`WINDOW` consecutive blocks; of a shallower trunk, all blocks.

    >>> windows_of(8)
    [(0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), (2, 3, 4, 5, 6, 7)]
    """
    size = min(WINDOW, depth)
    return [tuple(range(first, first + size)) for first in range(depth - size + 1)]


def can_be_swept(probe: Probe, depth: int) -> bool:
    """Return whether blocks can be chosen for ``probe``, see :func:`aimcore.experiment.probe_fit.can_choose_layers`."""
    return depth > 1 and can_choose_layers(probe)


@contextmanager
def layer_store(cache: FeatureCache | None) -> Iterator[FeatureCache]:
    """Yield ``cache``, or a cache in a temporary folder, which the first process creates and removes."""
    if cache is not None:
        yield cache
        return
    folder = on_first_rank(lambda: tempfile.mkdtemp(prefix="aimcore-layers-"))
    try:
        yield FeatureCache(folder)
        any_rank(False)  # waits for all: the others may still read
    finally:
        if rank_and_world_size()[0] == 0:
            shutil.rmtree(folder, ignore_errors=True)


def swept(provider: FeatureProvider, trunk: FrozenTrunk, probes: Sequence[Probe]) -> dict[str, Sweep]:
    """Probe every block and every window of ``trunk`` with each of ``probes``.

    Args:
        provider: provides features; it must have a cache, in which the outputs of all blocks are stored.
        trunk: the trunk.
        probes: the probes, for which :func:`can_be_swept` must be true.

    Raises:
        CannotWrite: the cache has no space for the outputs of all blocks.
    """
    depth = trunk.trunk.depth
    requests = {probe: [_request(probe, block) for block in range(depth)] for probe in probes}
    everything = [one for block in range(depth) for one in {probe: requests[probe][block] for probe in probes}.values()]
    train, test = provider.train_and_test(trunk, everything)
    found: dict[str, Sweep] = {}
    for probe, of_block in requests.items():
        tables = [(_stored(train[one]), _stored(test[one])) for one in of_block]
        outcomes = {}
        for layers in (*((block,) for block in range(depth)), *windows_of(depth)):
            parts = [tables[layer] for layer in layers]
            averages = [StoredTable.average([part[split] for part in parts]) for split in (0, 1)]
            outcome, fitted, held_out = fitted_outcome(provider.images, probe, *averages)
            share = int(averages[0].correct(fitted, held_out).sum()) / len(held_out)
            outcomes[layers] = LayerOutcome(layers, share, outcome)
            logger.info("{} on blocks {}: held-out {:.4f}", probe.name, list(layers), share)
        blocks = tuple(outcomes[(block,)] for block in range(depth))
        found[probe.name] = Sweep(blocks, tuple(outcomes[layers] for layers in windows_of(depth)))
    return found


def batch_size_of(provider: FeatureProvider, trunk: FrozenTrunk) -> int:
    """Return how many images are read at once, so that the outputs of all blocks have about :data:`BATCH_BYTES`."""
    experiment = provider.images.experiment
    patches = (provider.images.size.image_size // experiment.trunk.patch_size) ** 2
    per_image = 4 * trunk.trunk.depth * patches * trunk.trunk.width
    return max(1, min(provider.batch_size, BATCH_BYTES // per_image))


def _request(probe: Probe, block: int) -> FeatureRequest:
    return FeatureRequest(FeatureKind(reads=probe.reads, layers=(block,)), probe.max_train_images)


def _stored(table: object) -> StoredTable:
    assert isinstance(table, StoredTable)  # the provider has a cache
    return table
