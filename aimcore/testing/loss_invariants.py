"""Do the sums, counts and losses per step of an objective agree with each other?"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch

from aimcore.contracts.assembly import checked_counts
from aimcore.contracts.batches import Batch
from aimcore.testing.instrumented import Watched
from aimcore.testing.requirements import differs


def miscounts_of(watched: Watched) -> Iterator[str]:
    """Where ``counts(batch)``, known before any forward, and ``num_targets`` differ."""
    losses, counts = watched.losses(), checked_counts(watched.module, watched.module.counts(watched.batch))
    if losses.keys() != counts.keys():
        yield f"counts(batch) has {sorted(counts)}, but the losses are {sorted(losses)}"
    for name in losses.keys() & counts.keys():
        if counts[name] != int(losses[name].num_targets):
            yield f"loss {name!r}: counts(batch) differs from the loss's num_targets"


def missums_of(watched: Watched) -> Iterator[str]:
    """Where the losses per step do not add up to ``sum`` and ``num_targets``."""
    for name, loss in watched.losses().items():
        if loss.per_position_BN is None:
            continue
        if not torch.isclose(loss.per_position_BN.nansum(), loss.sum, rtol=1e-9):
            yield f"loss {name!r}: per_position_BN does not add up to sum"
        if int(loss.num_targets) != int((~loss.per_position_BN.isnan()).sum()):
            yield f"loss {name!r}: num_targets is not the number of scored steps in per_position_BN"


@torch.no_grad()
def mixtures_of(watched: Watched) -> Iterator[str]:
    """Where one image's loss depends on another image."""
    read = watched.read_of(_with_other_images_after_the_first(watched.batch))
    for name, loss in watched.losses().items():
        if loss.per_position_BN is None:
            continue
        if differs(loss.per_position_BN[0], watched.per_position(name, read=read)[0]).any():
            yield f"loss {name!r}: one image's loss depends on another image"


def _with_other_images_after_the_first(batch: Batch) -> Batch:
    patches_BNF = batch.images.patches_BNF.clone()
    patches_BNF[1:] = patches_BNF[1:].flip(-1) + 1
    views = {key: torch.cat([view[:1], 1 - view[1:]]) for key, view in batch.views.items()}
    return attrs.evolve(batch, images=attrs.evolve(batch.images, patches_BNF=patches_BNF), views=views)
