"""Trunks: the encoders that are trained, probed and exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, dtype, nn

from aimcore.contracts.component import Component
from aimcore.contracts.features import Capability, Features, Reading
from aimcore.contracts.images import Images, PatchGrid, Preprocessing
from aimcore.contracts.old_names import accept_old_property, old_property


class Trunk(Component, ABC):
    """The encoder that is trained, probed and exported."""

    __slots__ = ()
    role: ClassVar[str] = "trunks"

    can = old_property("can", "capabilities")

    def __init_subclass__(cls, **options: Any) -> None:
        """Accept classes that override :attr:`can`."""
        super().__init_subclass__(**options)
        accept_old_property(cls, "can", "capabilities")

    @property
    def capabilities(self) -> frozenset[Capability | str]:
        """What it can do beyond reading a uniform batch bidirectionally in raster order."""
        return frozenset()

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a square patch, in pixels."""

    @property
    def num_extra(self) -> int:
        """R, the number of tokens in addition to patches (``Features.extra_BRD``), the class token first."""
        return 0

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """Return the grid of its tokens for images of ``grid``; a smaller one if it merges tokens.

        Merged tokens are in raster order of that grid, with their positions in it. Objectives that score patches or
        read in an order, and probes of tokens at native resolution, refuse a trunk with another grid.
        """
        return grid

    @classmethod
    def of_model(cls, model: str) -> NamedModel:
        """Return the trunk of a model that a library knows by name, with what its weights expect. Optional.

        Nothing is downloaded.

        Args:
            model: an architecture of the library, or a folder with its configuration.

        Raises:
            NotImplementedError: this trunk knows no models by name.
            AimcoreError: there is no such model.
        """
        raise NotImplementedError(f"trunk {cls.name!r} knows no models by name")

    @abstractmethod
    def build(self) -> TrunkModule:
        """Build the module, with fresh weights drawn from torch's global generator."""

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Convert a state dictionary of another layout, such as its authors' own, to that of this trunk. Optional.

        Tensors may be on the meta device; then only names and shapes matter.

        Raises:
            NotImplementedError: this trunk reads no other layout.
            AimcoreError: the layout of the state is unknown.
        """
        raise NotImplementedError(f"trunk {self.name!r} reads no other layout than its own")

    def resized(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Convert the state dictionary of this trunk at another image size to this size. Optional.

        Learned positions are interpolated, or removed if this trunk has fixed ones. Tensors may be on the meta device;
        then only names and shapes matter.

        Raises:
            NotImplementedError: this trunk cannot use weights of another image size.
            AimcoreError: the state cannot be resized.
        """
        raise NotImplementedError(f"trunk {self.name!r} cannot take weights fitted at another image size")

    def export(self, module: TrunkModule) -> ExportedTrunk:
        """Return the trunk and the weights that ``aimcore export`` writes. Optional.

        By default they are this trunk and the state of ``module``. A trunk that wraps another one, with weights that
        can be merged into it, returns that one.
        """
        return ExportedTrunk(self, module.state_dict())

    def pretrained(self) -> PretrainedTrunk | None:
        """Return the plain trunk and the file of its weights, for a trunk that names a file. Optional.

        An experiment replaces its trunk by the plain one, and begins with the weights of the file. A trunk that wraps
        another one returns itself around the plain one.

        Raises:
            AimcoreError: the file cannot be read, or holds no trunk.
        """
        return None

    def weights_advice(
        self, state: Mapping[str, Tensor], pixels: Preprocessing, read_sibling: Callable[[str], bytes | None]
    ) -> Iterable[str]:
        """Yield warnings before training starts with weights of a file, such as their preprocessing. Optional.

        Args:
            state: the file's entries, on the meta device.
            pixels: the preprocessing of the run.
            read_sibling: returns the content of another file in the folder of the weights by its name, or None.
        """
        return ()

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why this trunk cannot read images of ``grid`` (for example, learned positions of another size)."""
        return ()


class NamedModel(NamedTuple):
    """A model that a library knows by name, as a trunk."""

    trunk: Trunk
    image_size: int
    """Side of the square images that its weights expect, in pixels."""
    pixels: Preprocessing | None
    """Preprocessing that its weights expect; None if the library does not say."""
    weights: str | None
    """Path or URL of its weights; None if the name does not imply any."""


class PretrainedTrunk(NamedTuple):
    """A trunk, and the file with whose weights it begins: the fields of ``Weights``."""

    trunk: Trunk
    url: str
    sha256: str | None = None
    resize: bool = False
    """Whether the file is for another image size."""
    fresh: tuple[str, ...] = ()
    """Names of parameters that the file does not have."""


class ExportedTrunk(NamedTuple):
    """A trunk with its weights, as other runs and programs load them."""

    trunk: Trunk
    state: Mapping[str, Tensor]
    """The state dictionary of the trunk's module."""


class TrunkModule(nn.Module, ABC):
    """The module of an encoder. Its constructor must set the four sizes below."""

    width: int
    """D, the width of its tokens."""
    depth: int
    """Number of blocks whose outputs ``Reading.layers`` can request."""
    patch_size: int
    """Side of a patch in pixels, equal to that of its component."""
    num_channels: int
    """Number of colour channels that it reads."""

    @abstractmethod
    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` describes; return features in reading order."""

    def embed_patches(self, images: Images) -> Tensor:
        """Return ``[B, N, D]`` in raster order: embeddings of single patches, without positions or attention.

        Optional, for the capability ``"embeddings"``. Objectives use them as targets (arXiv:2512.16922), so the
        causality check counts the patches that it reads as part of the target. It must only call parts of this module
        and use no parameter directly: at ZeRO stage 3, parameters are whole only in the forward of their own module.

        Raises:
            NotImplementedError: this trunk does not return patch embeddings.
        """
        raise NotImplementedError(f"{type(self).__name__} does not return its patch embeddings")

    def for_inference(self, products: dtype | None = None) -> TrunkModule:
        """Return a module whose forward gives the same features faster, without gradients. Optional.

        A module other than this one holds a copy of the weights as they are now, and later changes of this module do
        not reach it. The features are equal up to rounding. By default, it is this module.

        Args:
            products: the type of matrix products, as under autocast; by default that of the weights.
        """
        return self

    def blocks_to_recompute(self) -> Iterable[nn.Module]:
        """Return the blocks whose activations the backward pass may recompute (``Engine.checkpoint_activations``).

        By default, the modules of its attribute ``blocks`` if that is an ``nn.ModuleList``, otherwise none. The forward
        of a block is called a second time in the backward pass, with the same arguments and random numbers, and must
        return the same. In heads, decoders and other parts of an objective, the modules of every ``nn.ModuleList``
        called ``blocks`` are recomputed.
        """
        blocks = getattr(self, "blocks", None)
        return tuple(blocks) if isinstance(blocks, nn.ModuleList) else ()

    def layer_of(self, name: str) -> int:
        """Return the layer of the parameter ``name``, for layer-wise decay (``Optimizer.layer_decay``). Optional.

        Layer 0 is the patch embedding, layer i + 1 is block i, and layer ``depth + 1`` is everything after the blocks.

        Args:
            name: the name of the parameter in ``named_parameters()`` of this module.

        Raises:
            NotImplementedError: this trunk does not assign parameters to layers.
        """
        raise NotImplementedError(f"{type(self).__name__} does not assign parameters to layers (layer_of)")

    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        """Return ``[B, H, N, N]`` float32: attention of the last block, from queries (third axis) to keys.

        Optional, for pictures. Both axes are in reading order, and rows add up to 1.

        Raises:
            NotImplementedError: this trunk does not return attention maps.
        """
        raise NotImplementedError("this trunk does not return attention maps")
