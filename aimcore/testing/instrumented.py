"""An objective on a trunk whose input the checks control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import attrs
import torch
from torch import Tensor

from aimcore.contracts.assembly import built_objective, built_trunk
from aimcore.contracts.batches import Batch
from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import Images
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.results import Loss
from aimcore.contracts.trunks import TrunkModule
from aimcore.testing.cases import Case
from aimcore.testing.fixtures import batch_for, draw_nonzero, random_images, stacked
from aimcore.testing.requirements import same, seeded

Read = tuple[Tensor, ...]
"""The patches that each call of the trunk reads, in the order of the calls."""


class CallRecord:
    """Records the inputs of a trunk and its copies in one forward of an objective, and replaces them on request.

    An objective may call a copy of its trunk, such as an EMA of it. If it calls the trunk itself too, copies make
    targets, and their inputs are not replaced. If not, as in an evaluation of the EMA, copies make predictions.
    """

    def __init__(self) -> None:
        self.trunk: InstrumentedTrunk | None = None
        self._calls: dict[bool, list[Images]] = {False: [], True: []}
        self._instead: Read | None = None
        self._copies_predict = False

    def __deepcopy__(self, memo: dict[int, Any]) -> CallRecord:
        """Return the same record, so that a trunk and its copies share one."""
        return self

    @contextmanager
    def forward(self, instead: Read | None = None, *, copies_predict: bool = False) -> Iterator[None]:
        """A context for one forward, in which predicting calls read ``instead``; by default their own inputs."""
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
        """The inputs of the predicting calls in the last forward."""
        return tuple(images.patches_BNF for images in self._calls[self.copies_predict])

    def read(self, trunk: InstrumentedTrunk, images: Images) -> Images:
        """Record the input ``images`` of ``trunk``, and return what it should read."""
        is_copy = trunk is not self.trunk
        calls = self._calls[is_copy]
        calls.append(images)
        if self._instead is None or is_copy != self._copies_predict or len(calls) > len(self._instead):
            return images
        return attrs.evolve(images, patches_BNF=self._instead[len(calls) - 1])


class InstrumentedTrunk(TrunkModule):
    """A trunk that reads the patches that the check chooses instead of those that the objective passes."""

    def __init__(self, inner: TrunkModule) -> None:
        super().__init__()
        self.inner = inner
        self.width, self.depth = inner.width, inner.depth
        self.patch_size, self.num_channels = inner.patch_size, inner.num_channels
        self.record = CallRecord()
        self.record.trunk = self

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read the chosen patches as ``reading`` describes."""
        features: Features = self.inner(self.record.read(self, images), reading)
        return features

    def embed_patches(self, images: Images) -> Tensor:
        """Embed the given patches unchanged: embeddings are targets, not inputs of a prediction."""
        return self.inner.embed_patches(images)


@attrs.frozen(eq=False)
class InstrumentedObjective:
    """An objective module with its trunk, in float64 with every weight nonzero, and a random batch."""

    case: Case
    trunk: InstrumentedTrunk
    module: ObjectiveModule
    batch: Batch
    _read: dict[bool, tuple[Read, bool]] = attrs.field(factory=dict, init=False)
    """The trunk's inputs for the batch, in training and in eval mode, and whether copies of the trunk predict."""
    _unchanged: dict[bool, dict[str, Loss]] = attrs.field(factory=dict, init=False)
    """The losses of the batch, in training and in eval mode."""
    _stacks: dict[tuple[str, bool], bool] = attrs.field(factory=dict, init=False)
    """Whether copies of the batch in one forward have the losses that they have alone, by loss and mode."""

    @classmethod
    def of(cls, case: Case, *, seed: int = 0) -> InstrumentedObjective:
        """Build the trunk and objective of ``case``, and a random batch."""
        with seeded(seed):
            trunk = InstrumentedTrunk(built_trunk(case.trunk))
            module = built_objective(case.objective, trunk).double()
            draw_nonzero(module)
        images = random_images(case.grid, patch_size=trunk.patch_size, num_channels=trunk.num_channels, seed=seed)
        return cls(case, trunk, module, batch_for(case.objective, images, seed=seed))

    def in_both_modes(self) -> Iterator[str]:
        """Switch the module to training mode, then to eval mode; yield the name of each."""
        for mode in ("training", "evaluation"):
            self.module.train(mode == "training")
            yield mode

    def losses(self, batch: Batch | None = None, read: Read | None = None) -> dict[str, Loss]:
        """Return the losses of ``batch`` while the trunk reads ``read``; both default to those of ``self.batch``.

        The seed is always the same, so that dropout does not look like a dependence.
        """
        if batch is None and read is None:
            mode = self.module.training
            if mode not in self._unchanged:
                self._unchanged[mode] = self.losses_of(self.batch)
            return self._unchanged[mode]
        own, copies_predict = self._read_of_the_batch()
        return self._forward(self.batch if batch is None else batch, own if read is None else read, copies_predict)

    def losses_of_copies(self, name: str, copies: Sequence[Batch], *, of_input: bool = False) -> Tensor:
        """Return ``[C, B, S]``, the loss ``name`` per step, of C changed copies of the batch.

        The copies go through one forward where that changes nothing: not if the objective draws random numbers per
        image of a forward, or mixes images. Then each copy goes through its own. Unchanged copies between the changed
        ones show which it is.

        Args:
            name: the loss, which has ``per_position_BN``.
            copies: copies of ``self.batch``.
            of_input: whether the trunk's input is that of the copies, and everything else that of ``self.batch``, or
                the other way round.
        """
        alternating = [*chain.from_iterable((self.batch, copy) for copy in copies), self.batch]
        if self._stack_equals_singles(name, len(alternating)):
            stacked_CBS = self._losses_of_stack(name, alternating, of_input=of_input)
            base_BS = self.per_position(name)
            if all(_equal(unchanged_BS, base_BS) for unchanged_BS in stacked_CBS[::2]):  # copies do not mix
                return torch.stack(stacked_CBS[1::2])
        singles = (self.losses(read=self.read_of(copy)) if of_input else self.losses(copy) for copy in copies)
        return torch.stack([_per_position(losses, name) for losses in singles])

    def _stack_equals_singles(self, name: str, num_copies: int) -> bool:
        key = name, self.module.training
        if key not in self._stacks:
            losses_CBS = self._losses_of_stack(name, [self.batch] * num_copies, of_input=True)
            base_BS = self.per_position(name)
            self._stacks[key] = all(_equal(copy_BS, base_BS) for copy_BS in losses_CBS)
        return self._stacks[key]

    def _losses_of_stack(self, name: str, copies: Sequence[Batch], *, of_input: bool) -> tuple[Tensor, ...]:
        own, copies_predict = self._read_of_the_batch()
        stack, read = stacked(copies), tuple(torch.cat([each_BNF] * len(copies)) for each_BNF in own)
        if of_input:
            stack, read = stacked([self.batch] * len(copies)), self.read_of(stack)
        return _per_position(self._forward(stack, read, copies_predict), name).tensor_split(len(copies))

    def losses_of(self, batch: Batch) -> dict[str, Loss]:
        """Return the losses of ``batch`` while the trunk reads it."""
        return self._forward(batch, None)

    def per_position(self, name: str, batch: Batch | None = None, read: Read | None = None) -> Tensor:
        """Return ``per_position_BN`` of one loss."""
        return _per_position(self.losses(batch, read), name)

    def read_of(self, batch: Batch) -> Read:
        """Return the trunk's inputs for ``batch``: its patches, or what the objective computes from them."""
        of_the_batch, _ = self._read_of_the_batch()
        if all(patches_BNF is self.batch.images.patches_BNF for patches_BNF in of_the_batch):
            return (batch.images.patches_BNF,) * len(of_the_batch)
        self._forward(batch, None)
        return self.trunk.record.given

    def _read_of_the_batch(self) -> tuple[Read, bool]:
        mode = self.module.training
        if mode not in self._read:
            self._forward(self.batch, None)
            record = self.trunk.record
            read = tuple(each.detach() if each.requires_grad else each for each in record.given)
            self._read[mode] = read, record.copies_predict
        return self._read[mode]

    def _forward(self, batch: Batch, read: Read | None, copies_predict: bool = False) -> dict[str, Loss]:
        with seeded(), self.trunk.record.forward(read, copies_predict=copies_predict):
            losses: dict[str, Loss] = self.module(batch)
        return losses


def _per_position(losses: dict[str, Loss], name: str) -> Tensor:
    found = losses[name].per_position_BN
    assert found is not None
    return found


def _equal(one_BS: Tensor, other_BS: Tensor) -> bool:
    """Whether two losses per step are equal up to rounding and score the same steps."""
    return same(one_BS, other_BS) and torch.equal(one_BS.isnan(), other_BS.isnan())
