"""An objective on a trunk whose input the checks control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor

from aimcore.contracts.assembly import built_objective, built_trunk
from aimcore.contracts.batches import Batch
from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import Images
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.results import Loss
from aimcore.contracts.trunks import TrunkModule
from aimcore.testing.cases import Case
from aimcore.testing.fixtures import batch_for, draw_nonzero, random_images
from aimcore.testing.requirements import seeded

Read = tuple[Tensor, ...]
"""The patches that each call of the trunk reads, in the order of the calls."""


class Watch:
    """What a trunk and its copies are given to read in one forward of an objective, and what they read instead.

    An objective may read with a copy of its trunk, such as an EMA of it. Where the trunk itself is called, a copy makes
    targets, and reads what it is given. Where it is not, as in an evaluation of the EMA, the copies predict.
    """

    def __init__(self) -> None:
        self.trunk: WatchedTrunk | None = None
        self._calls: dict[bool, list[Images]] = {False: [], True: []}
        self._instead: Read | None = None
        self._copies_predict = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """The watch itself: a copy of the trunk is watched by the same one."""
        return self

    @contextmanager
    def forward(self, instead: Read | None = None, *, copies_predict: bool = False) -> Iterator[None]:
        """One forward, in which the calls that predict read ``instead``; by default what they are given."""
        self._calls = {False: [], True: []}
        self._instead, self._copies_predict = instead, copies_predict
        try:
            yield
        finally:
            self._instead = None

    @property
    def copies_predict(self) -> bool:
        """Whether the trunk itself was not called in the last forward."""
        return not self._calls[False]

    @property
    def given(self) -> Read:
        """What the calls that predict were given in the last forward."""
        return tuple(images.patches_BNF for images in self._calls[self.copies_predict])

    def read(self, trunk: WatchedTrunk, images: Images) -> Images:
        """What ``trunk`` reads when it is given ``images``."""
        is_copy = trunk is not self.trunk
        calls = self._calls[is_copy]
        calls.append(images)
        if self._instead is None or is_copy != self._copies_predict or len(calls) > len(self._instead):
            return images
        return attrs.evolve(images, patches_BNF=self._instead[len(calls) - 1])


class WatchedTrunk(TrunkModule):
    """A trunk that reads patches which the check chooses, whatever the objective passes."""

    def __init__(self, inner: TrunkModule) -> None:
        super().__init__()
        self.inner = inner
        self.width, self.depth = inner.width, inner.depth
        self.patch_size, self.num_channels = inner.patch_size, inner.num_channels
        self.watch = Watch()
        self.watch.trunk = self

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read the chosen patches as ``reading`` says."""
        features: Features = self.inner(self.watch.read(self, images), reading)
        return features

    def embed_patches(self, images: Images) -> Tensor:
        """Embed the patches that are given: they are targets, and not what a prediction reads."""
        return self.inner.embed_patches(images)


@attrs.frozen(eq=False)
class Watched:
    """An objective module with its trunk, in float64 with every weight nonzero, and a random batch."""

    case: Case
    trunk: WatchedTrunk
    module: ObjectiveModule
    batch: Batch
    _read: dict[bool, tuple[Read, bool]] = attrs.field(factory=dict, init=False)
    """What the batch gives the trunk to read, in training and in evaluation mode, and whether copies of it predict."""

    @classmethod
    def of(cls, case: Case, *, seed: int = 0) -> Watched:
        """Build what ``case`` names."""
        with seeded(seed):
            trunk = WatchedTrunk(built_trunk(case.trunk))
            module = built_objective(case.objective, trunk).double()
            draw_nonzero(module)
        images = random_images(case.grid, patch_size=trunk.patch_size, num_channels=trunk.num_channels, seed=seed)
        return cls(case, trunk, module, batch_for(case.objective, images, seed=seed))

    def in_both_modes(self) -> Iterator[str]:
        """Put the module into training, then into evaluation mode; give the mode's name."""
        for mode in ("training", "evaluation"):
            self.module.train(mode == "training")
            yield mode

    def losses(self, batch: Batch | None = None, read: Read | None = None) -> dict[str, Loss]:
        """The losses of ``batch`` (by default the batch) while the trunk reads ``read`` (by default of the batch).

        Always under the same seed: dropout must not look like a dependence.
        """
        if batch is None and read is None:
            return self.losses_of(self.batch)
        own, copies_predict = self._read_of_the_batch()
        return self._forward(self.batch if batch is None else batch, own if read is None else read, copies_predict)

    def losses_of(self, batch: Batch) -> dict[str, Loss]:
        """The losses of ``batch`` while the trunk reads it."""
        return self._forward(batch, None)

    def per_position(self, name: str, batch: Batch | None = None, read: Read | None = None) -> Tensor:
        """``per_position_BN`` of one loss."""
        found = self.losses(batch, read)[name].per_position_BN
        assert found is not None
        return found

    def read_of(self, batch: Batch) -> Read:
        """What the objective gives the trunk to read of ``batch``: its patches, or what it makes of them."""
        of_the_batch, _ = self._read_of_the_batch()
        if all(patches_BNF is self.batch.images.patches_BNF for patches_BNF in of_the_batch):
            return (batch.images.patches_BNF,) * len(of_the_batch)
        self._forward(batch, None)
        return self.trunk.watch.given

    def _read_of_the_batch(self) -> tuple[Read, bool]:
        mode = self.module.training
        if mode not in self._read:
            self._forward(self.batch, None)
            watch = self.trunk.watch
            read = tuple(each.detach() if each.requires_grad else each for each in watch.given)
            self._read[mode] = read, watch.copies_predict
        return self._read[mode]

    def _forward(self, batch: Batch, read: Read | None, copies_predict: bool = False) -> dict[str, Loss]:
        with seeded(), self.trunk.watch.forward(read, copies_predict=copies_predict):
            losses: dict[str, Loss] = self.module(batch)
        return losses
