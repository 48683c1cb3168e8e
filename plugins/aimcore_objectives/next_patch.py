"""Next-patch prediction: AIM's objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from torch import Tensor

from aimcore import (
    Batch,
    Capability,
    Extra,
    Head,
    Loss,
    Objective,
    ObjectiveModule,
    Ordering,
    PatchGrid,
    PredictedPatches,
    Problem,
    Reading,
    Target,
    TrunkModule,
    View,
    at_least,
    built_target,
    component,
)
from aimcore_heads import LinearHead, MLPHead
from aimcore_objectives.steps import (
    Steps,
    drawn_patches,
    nothing_left,
    num_scored,
    orders_of,
    patch_loss,
    steps_of,
    validation_prefix,
)
from aimcore_orderings import Raster
from aimcore_targets import NormalizedPixels


@component("next_patch", paper="arXiv:2401.08541, section 4")
class NextPatch(Objective):
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
    def views(self) -> tuple[View, ...]:
        """The views of its target."""
        return self.target.views

    @property
    def extras(self) -> tuple[Extra, ...]:
        """The extras of its target."""
        return self.target.extras

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


class NextPatchModule(ObjectiveModule):
    """The module of :class:`NextPatch`."""

    def __init__(self, config: NextPatch, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = config.head.build(trunk.width, config.target.num_outputs(trunk.patch_size, trunk.num_channels))
        self.target = built_target(config.target, trunk.patch_size, trunk.num_channels)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of patches after the prefixes."""
        return {"next_patch": num_scored(batch, self.config.prefix, training=self.training)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss over all patches after the prefixes."""
        predictions_MK, steps = self._predict(batch)
        return {"next_patch": patch_loss(self.target, batch, steps, predictions_MK)}

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Predict each patch after the prefix from the true patches before it; return them in raster order."""
        predictions_MK, steps = self._predict(batch)
        return drawn_patches(self.target, batch, steps, predictions_MK)

    def _predict(self, batch: Batch) -> tuple[Tensor, Steps]:
        """Predictions ``[M, K]`` of the patches at the scored steps."""
        steps = steps_of(batch, self.config.ordering, self.config.prefix, training=self.training)
        features = self.trunk(batch.images, Reading(attention=steps.attention, order_BN=steps.order_BN))
        return self.head(features, steps.attention, steps.target_M - 1), steps
