"""What reads images: trunks, and the orders they read in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from aimcore.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from aimcore.experiment.data import Data
    from aimcore.modules import TrunkModule
    from aimcore.values import Ability, PatchGrid


class Ordering(Component, ABC):
    """The order in which an autoregressive encoder reads the patches of an image."""

    __slots__ = ()
    role: ClassVar[str] = "orderings"

    @abstractmethod
    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]`` int64: the raster index of the patch read at each step. Any rectangle must do."""


class Trunk(Component, ABC):
    """The encoder: what is trained, probed and exported."""

    __slots__ = ()
    role: ClassVar[str] = "trunks"

    @property
    def can(self) -> frozenset[Ability]:
        """What it can read beyond a uniform batch, bidirectionally, in raster order."""
        return frozenset()

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a square patch, in pixels."""

    @abstractmethod
    def build(self) -> TrunkModule:
        """The module, with fresh weights drawn from torch's global generator."""

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state of this trunk's module from that of another layout, such as its authors' own. Optional.

        Tensors may be on the meta device: only names and shapes are asked for then.

        Raises:
            NotImplementedError: this trunk reads no other layout.
            AimcoreError: the state is in none that it reads.
        """
        raise NotImplementedError(f"trunk {self.name!r} reads no other layout than its own")

    def resized(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state of this trunk's module from that of one for images of another size. Optional.

        Learned positions are interpolated, or left out where this trunk has fixed ones. Tensors may be on the meta
        device: only names and shapes are asked for then.

        Raises:
            NotImplementedError: this trunk cannot be given weights of another size.
            AimcoreError: the state cannot be resized.
        """
        raise NotImplementedError(f"trunk {self.name!r} cannot take weights fitted at another image size")

    def weights_advice(
        self, state: Mapping[str, Tensor], data: Data, beside: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Yield what to know before training begins with weights of a file, such as how they expect pixels. Optional.

        Each text is a warning; nothing is refused.

        Args:
            state: the file's entries, on the meta device.
            data: what the run reads, and how pixels are normalised.
            beside: the content of another file in the folder of the weights, by its name; None where there is none.
        """
        return ()

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this trunk cannot read images of ``grid`` (for example, learned positions of another size)."""
        return ()
