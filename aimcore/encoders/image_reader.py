"""Reading of images with a trunk that has its weights: what cannot be read is refused with the encoder's name.

Shape suffixes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import Images, PatchGrid, images_of
from aimcore.contracts.messages import shown
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.encoders.encoder_source import EncoderError
from aimcore.evaluation.inference_copy import InferenceCopy


class ImageReader:
    """Reads images with a trunk, for gradients or frozen."""

    def __init__(self, trunk: Trunk, module: TrunkModule, name: str) -> None:
        """Take the component, its module, and what messages call the encoder."""
        self._trunk, self._module, self._name = trunk, module, name
        self._inference = InferenceCopy(module)
        self._readable: set[PatchGrid] = set()

    def read(self, images_BCHW: Tensor | Images, layers: tuple[int, ...]) -> Features:
        """Return features; gradients pass.

        Raises:
            EncoderError: the images do not divide into patches, or the trunk cannot read their grid.
        """
        return self._read_with(self._module, images_BCHW, layers)

    def read_frozen(self, images_BCHW: Tensor | Images, layers: tuple[int, ...]) -> Features:
        """Return features, with the module that is fastest without gradients.

        Raises:
            EncoderError: see :meth:`read`.
        """
        return self._read_with(self.frozen_module(), images_BCHW, layers)

    def frozen_module(self, products: torch.dtype | None = None) -> TrunkModule:
        """Return the module that reads fastest without gradients: the module, or a copy of its present weights."""
        return self._inference.current(products)

    def frozen_towers(self, towers: ObjectiveModule) -> ObjectiveModule:
        """Return ``towers`` around the module that reads fastest without gradients. All other parts are shared."""
        twin = copy(towers)
        twin._modules = {**towers._modules, "trunk": self.frozen_module()}
        return twin

    def images(self, images: Tensor | Images) -> Images:
        """Return images as patches.

        Raises:
            EncoderError: they do not divide into patches, or the trunk cannot read their grid.
        """
        found = images if isinstance(images, Images) else self._in_patches(images)
        self._require_readable(found)
        return found

    def blocks(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers of blocks, of which negative ones count from the last.

        Raises:
            EncoderError: there is no such block.
        """
        depth = self._module.depth
        numbers: list[Any] = list(layers) if isinstance(layers, Iterable) else [None]
        if not all(hasattr(layer, "__index__") and -depth <= layer < depth for layer in numbers):
            raise EncoderError(
                f"layers are a list of blocks of {self._name}, 0 to {depth - 1} or {-depth} to -1, such as [0, -1]; "
                f"got {shown(layers)}"
            )
        return tuple(int(layer) % depth for layer in numbers)

    def _read_with(self, module: TrunkModule, images_BCHW: Tensor | Images, layers: tuple[int, ...]) -> Features:
        features: Features = module(self.images(images_BCHW), Reading(layers=layers))
        return features

    def _in_patches(self, images_BCHW: Tensor) -> Images:
        side, channels = self._module.patch_size, self._module.num_channels
        if (
            not isinstance(images_BCHW, Tensor)
            or not images_BCHW.is_floating_point()
            or images_BCHW.dim() != 4
            or not len(images_BCHW)
            or images_BCHW.shape[1] != channels
            or any(length < side or length % side for length in images_BCHW.shape[2:])
        ):
            given: Any = images_BCHW
            got = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise EncoderError(
                f"{self._name} reads normalised images, floating-point [B, {channels}, H, W] with B at least 1 and H "
                f"and W multiples of {side} px; got {got}. encoder.transform gives the pixels of a Pillow image: "
                "torch.stack([encoder.transform(image) for image in images])"
            )
        return images_of(images_BCHW, side)

    def _require_readable(self, images: Images) -> None:
        """Refuse grids that the trunk cannot read; say once for each grid that positions are interpolated."""
        own = getattr(self._trunk, "grid", None)
        for grid in sorted(set(images.grids) - self._readable):
            for problem in self._trunk.problems_with(grid):
                raise EncoderError(f"{self._name}: {problem}")
            self._readable.add(grid)
            if own is not None and own != (grid.rows, grid.columns):
                logger.info(
                    "{}: positions of {} x {} patches are interpolated for {} x {} (bicubic, antialiased)",
                    self._name, *own, grid.rows, grid.columns,
                )  # fmt: skip


def averaged(features: Features, layers: tuple[int, ...]) -> Tensor:
    """Return ``[B, N, D]``: the mean of raw block outputs; without layers, the tokens after the final norm."""
    return torch.stack(features.layers).mean(0) if layers else features.tokens_BND
