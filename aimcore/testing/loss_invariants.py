"""Loss invariants: the sums, counts and losses per step of an objective agree, and images do not mix."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch

from aimcore.contracts.assembly import checked_counts
from aimcore.contracts.batches import Batch
from aimcore.testing.instrumented import InstrumentedObjective
from aimcore.testing.requirements import differs


def wrong_counts_of(instrumented: InstrumentedObjective) -> Iterator[str]:
    """Yield losses whose ``num_targets`` differs from ``counts(batch)``."""
    losses, counts = (
        instrumented.losses(),
        checked_counts(instrumented.module, instrumented.module.counts(instrumented.batch)),
    )
    if losses.keys() != counts.keys():
        yield f"counts(batch) has {sorted(counts)}, but the losses are {sorted(losses)}"
    for name in losses.keys() & counts.keys():
        if counts[name] != int(losses[name].num_targets):
            yield f"loss {name!r}: counts(batch) differs from the loss's num_targets"


def wrong_sums_of(instrumented: InstrumentedObjective) -> Iterator[str]:
    """Yield losses whose ``per_position_BN`` does not add up to ``sum`` and ``num_targets``."""
    for name, loss in instrumented.losses().items():
        if loss.per_position_BN is None:
            continue
        if not torch.isclose(loss.per_position_BN.nansum(), loss.sum, rtol=1e-9):
            yield f"loss {name!r}: per_position_BN does not add up to sum"
        if int(loss.num_targets) != int((~loss.per_position_BN.isnan()).sum()):
            yield f"loss {name!r}: num_targets is not the number of scored steps in per_position_BN"


@torch.no_grad()
def mixed_images_of(instrumented: InstrumentedObjective) -> Iterator[str]:
    """Yield losses of an image that depend on another image."""
    read = instrumented.read_of(_with_other_images_after_the_first(instrumented.batch))
    for name, loss in instrumented.losses().items():
        if loss.per_position_BN is None:
            continue
        if differs(loss.per_position_BN[0], instrumented.per_position(name, read=read)[0]).any():
            yield f"loss {name!r}: one image's loss depends on another image"


def _with_other_images_after_the_first(batch: Batch) -> Batch:
    patches_BNF = batch.images.patches_BNF.clone()
    patches_BNF[1:] = patches_BNF[1:].flip(-1) + 1
    views = {key: torch.cat([view[:1], 1 - view[1:]]) for key, view in batch.views.items()}
    return attrs.evolve(batch, images=attrs.evolve(batch.images, patches_BNF=patches_BNF), views=views)
