"""Next-patch prediction: AIM's objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from torch import Tensor

from aimcore import (
    Batch,
    Capability,
    Features,
    Head,
    Ordering,
    PatchGrid,
    Problem,
    Reading,
    Target,
    TrunkModule,
    at_least,
    component,
)
from aimcore_heads import LinearHead, MLPHead
from aimcore_objectives.patch_prediction import PatchObjective, PatchPredictionModule
from aimcore_objectives.steps import (
    Steps,
    nothing_left,
    num_scored,
    orders_of,
    steps_of,
    validation_prefix,
)
from aimcore_orderings import Raster
from aimcore_targets import NormalizedPixels


@component("next_patch", paper="arXiv:2401.08541, section 4")
class NextPatch(PatchObjective):
    """Predict each patch from the patches before it in the ordering, with causal or prefix attention.

    The output at step t - 1 predicts the patch of step t; the first patch, and every patch of the prefix, is never
    predicted. The loss is the sum over all scored patches divided by their number (the authors' code; equation 2
    averages over all K patches of an image). Validation is done with a prefix of one patch, which is plain causal
    attention, or with the fixed prefix: every run with the same ordering is then scored on the same patches.
    """

    ordering: Ordering = Raster()
    target: Target = NormalizedPixels()
    head: Head = MLPHead()
    prefix: Literal["uniform"] | int | None = "uniform"
    """Prefix length: uniform in [1, K - 1] per image (section 4.2), a fixed number of patches, or none (causal)."""

    @property
    def requires(self) -> frozenset[Capability]:
        """Causal or prefix-causal attention, and any order of patches."""
        return frozenset[Capability]({"causal" if self.prefix is None else "prefix", "order"})

    def problems(self) -> Iterable[Problem]:
        """Yield a problem if a fixed prefix is below one patch."""
        if isinstance(self.prefix, int):
            yield from at_least("prefix", self.prefix, 1)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if no patch is left to predict after the prefix."""
        return nothing_left(grid, self.prefix)

    @property
    def validation_prefix(self) -> int | None:
        """One patch if training draws the prefix, the fixed length, or None without a prefix."""
        return validation_prefix(self.prefix)

    def build(self, trunk: TrunkModule) -> NextPatchModule:
        """Build the trunk with this objective's head."""
        return NextPatchModule(self, trunk)

    def probe_reading(self, batch: Batch) -> Reading:
        """Return this objective's order."""
        return Reading(order_BN=orders_of(self.ordering, batch, training=False))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return small objectives with uniform, fixed and no prefix."""
        head = MLPHead(width=16, depth=2)
        return cls(head=head), cls(head=LinearHead(), prefix=2), cls(head=head, prefix=None)


class NextPatchModule(PatchPredictionModule):
    """The module of :class:`NextPatch`: each patch is predicted from the true patches before it."""

    loss_name = "next_patch"

    def __init__(self, config: NextPatch, trunk: TrunkModule) -> None:
        super().__init__(trunk, config.head, config.target)
        self.config = config

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of patches after the prefixes."""
        return {self.loss_name: num_scored(batch, self.config.prefix, training=self.training)}

    def _read(self, batch: Batch) -> tuple[Features, Tensor, Steps]:
        steps = steps_of(batch, self.config.ordering, self.config.prefix, training=self.training)
        features = self.trunk(batch.images, Reading(attention=steps.attention, order_BN=steps.order_BN))
        return features, steps.target_M - 1, steps
