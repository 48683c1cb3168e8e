"""Trunks: the encoders that are trained, probed and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from aimcore.contracts.component import Component
from aimcore.contracts.features import Capability, Features, Reading
from aimcore.contracts.images import Images, PatchGrid, Preprocessing
from aimcore.contracts.old_names import accept_old_property, old_property


class Trunk(Component, ABC):
    """The encoder: what is trained, probed and exported."""

    __slots__ = ()
    role: ClassVar[str] = "trunks"

    can = old_property("can", "capabilities")

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept classes that override :attr:`can`."""
        super().__init_subclass__(**options)
        accept_old_property(cls, "can", "capabilities")

    @property
    def capabilities(self) -> frozenset[Capability | str]:
        """What it can read beyond a uniform batch, bidirectionally, in raster order."""
        return frozenset()

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a square patch, in pixels."""

    @property
    def num_extra(self) -> int:
        """R: how many tokens its features have beside patches (``Features.extra_BRD``), the class token first."""
        return 0

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """The grid of the tokens that it gives of images of ``grid``; another one where it merges tokens.

        Tokens then come in raster order of that grid, with their places in it. Such a trunk is refused where tokens
        stand for patches: by objectives that score patches or read in an order, and by probes of tokens at native
        resolution.
        """
        return grid

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
        self, state: Mapping[str, Tensor], pixels: Preprocessing, read_sibling: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Yield what to know before training begins with weights of a file, such as how they expect pixels. Optional.

        Each text is a warning; nothing is refused.

        Args:
            state: the file's entries, on the meta device.
            pixels: the preprocessing of the run.
            read_sibling: returns the content of another file in the folder of the weights by its name, or None.
        """
        return ()

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this trunk cannot read images of ``grid`` (for example, learned positions of another size)."""
        return ()


class TrunkModule(nn.Module, ABC):
    """An encoder. ``width`` is D of its tokens, ``depth`` the number of blocks whose outputs can be asked for."""

    width: int
    """D of its tokens."""
    depth: int
    """Number of blocks whose outputs can be asked for."""
    patch_size: int
    """Side of a patch in pixels; that of its component."""
    num_channels: int
    """Colour channels that it reads."""

    @abstractmethod
    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` says; features come back in reading order."""

    def embed_patches(self, images: Images) -> Tensor:
        """``[B, N, D]`` in raster order: each patch before positions are added and any patch has seen another.

        Optional, the ability ``"embeddings"``. Objectives take targets from it (arXiv:2512.16922), so the causality
        check counts what it reads as part of the target. It only calls this module's parts and uses no weight of its
        own: at ZeRO stage 3 weights are whole in the forward of their owner alone.

        Raises:
            NotImplementedError: this trunk does not show its embeddings.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show its patch embeddings")

    def layer_of(self, name: str) -> int:
        """Which layer the parameter ``name`` belongs to, for layer-wise decay (``Optimizer.layer_decay``). Optional.

        0 for what makes tokens of patches, i + 1 for block i, ``depth + 1`` for what comes after the blocks.

        Args:
            name: as ``named_parameters()`` of this module gives it.

        Raises:
            NotImplementedError: this trunk does not assign parameters to layers.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which layer a parameter belongs to (layer_of)")

    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        """``[B, H, N, N]`` float32: what each query (third axis) of the last block's heads sees, in reading order.

        Optional, for pictures: rows add up to 1.

        Raises:
            NotImplementedError: this trunk does not show its attention.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show its attention")
