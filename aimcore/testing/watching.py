"""An objective on a trunk whose input the checks control."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from torch import Tensor

from aimcore.modules import ObjectiveModule, TrunkModule
from aimcore.testing.cases import Case
from aimcore.testing.material import batch_for, draw_nonzero, random_images
from aimcore.testing.requirements import seeded
from aimcore.values import Batch, Features, Images, Loss, Reading


class WatchedTrunk(TrunkModule):
    """A trunk that reads patches which the check chooses, whatever the objective passes."""

    def __init__(self, inner: TrunkModule) -> None:
        super().__init__()
        self.inner = inner
        self.width, self.depth = inner.width, inner.depth
        self.patch_size, self.num_channels = inner.patch_size, inner.num_channels
        self.patches_BNF: Tensor | None = None
        """What is read; None for what is passed."""

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read the chosen patches as ``reading`` says."""
        chosen = images if self.patches_BNF is None else attrs.evolve(images, patches_BNF=self.patches_BNF)
        features: Features = self.inner(chosen, reading)
        return features


@attrs.frozen(eq=False)
class Watched:
    """An objective module with its trunk, in float64 with every weight nonzero, and a random batch."""

    case: Case
    trunk: WatchedTrunk
    module: ObjectiveModule
    batch: Batch

    @classmethod
    def of(cls, case: Case, *, seed: int = 0) -> Watched:
        """Build what ``case`` names."""
        with seeded(seed):
            trunk = WatchedTrunk(case.trunk.build())
            module = case.objective.build(trunk).double()
            draw_nonzero(module)
        images = random_images(case.grid, patch_size=trunk.patch_size, num_channels=trunk.num_channels, seed=seed)
        return cls(case, trunk, module, batch_for(case.objective, images, seed=seed))

    def in_both_modes(self) -> Iterator[str]:
        """Put the module into training, then into evaluation mode; give the mode's name."""
        for mode in ("training", "evaluation"):
            self.module.train(mode == "training")
            yield mode

    def losses(self, batch: Batch | None = None, read_BNF: Tensor | None = None) -> dict[str, Loss]:
        """The losses of ``batch`` (by default the batch) while the trunk reads ``read_BNF`` (by default the batch).

        Always under the same seed: dropout must not look like a dependence.
        """
        self.trunk.patches_BNF = self.batch.images.patches_BNF if read_BNF is None else read_BNF
        with seeded():
            losses: dict[str, Loss] = self.module(self.batch if batch is None else batch)
        return losses

    def per_position(self, name: str, batch: Batch | None = None, read_BNF: Tensor | None = None) -> Tensor:
        """``per_position_BN`` of one loss."""
        found = self.losses(batch, read_BNF)[name].per_position_BN
        assert found is not None
        return found
