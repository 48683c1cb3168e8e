"""Random features: the baseline of a trunk that has learned nothing and mixes no patches.

Shape suffixes: B images, N patches, F values of a patch, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from aimcore import Features, Images, Problem, Reading, Trunk, TrunkModule, at_least, component
from aimcore.contracts import limits
from aimcore.modeling.positions import sincos_positions


@component("random_features")
class RandomFeatures(Trunk):
    """A fixed random projection of each patch, followed by a nonlinearity, at any width.

    A patch ``x`` of F values becomes ``relu(W x + b)`` or ``cos(W x + b)``, plus the fixed sine-cosine position of the
    patch, which lets attentive probes distinguish patches as they can for raw pixels. The entries of W are normal with
    variance 1/F. Those of b are standard normal, or uniform on [0, 2 pi) for the cosine (random Fourier features).
    Nothing is trained, and no token depends on another patch.

    At the width of a trunk, it shows how much of a probe's score comes from the number of features alone. Not in the
    papers.
    """

    width: int
    patch_size: int = 14
    num_channels: int = 3
    nonlinearity: Literal["relu", "cos"] = "relu"

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and a width that positions cannot have."""
        yield from at_least("width", self.width, 1, limits.WIDTH)
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_channels", self.num_channels, 1, limits.CHANNELS)
        if self.width % 4:
            yield Problem("width", f"sine-cosine positions need a multiple of 4, got {self.width}")

    def build(self) -> RandomFeaturesModule:
        """Build the module, with a projection drawn from torch's global generator."""
        return RandomFeaturesModule(self)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return a narrow one."""
        return (cls(width=16, patch_size=4),)


class RandomFeaturesModule(TrunkModule):
    """The module of :class:`RandomFeatures`. Its weights are buffers, which no optimizer trains."""

    def __init__(self, config: RandomFeatures) -> None:
        super().__init__()
        self.width, self.depth = config.width, 1
        self.patch_size, self.num_channels = config.patch_size, config.num_channels
        num_values, is_cosine = config.patch_size**2 * config.num_channels, config.nonlinearity == "cos"
        self.weight_FD: Tensor
        self.bias_D: Tensor
        self.register_buffer("weight_FD", torch.randn(num_values, config.width) / num_values**0.5)
        bias_D = torch.rand(config.width) * 2 * torch.pi if is_cosine else torch.randn(config.width)
        self.register_buffer("bias_D", bias_D)
        self._activate = torch.cos if is_cosine else torch.relu

    def forward(self, images: Images, reading: Reading) -> Features:
        """Project the patches. The only layer is the output itself."""
        patches_BNF = images.patches_BNF.to(self.weight_FD.dtype)
        features_BND = self._activate(patches_BNF @ self.weight_FD + self.bias_D)
        tokens_BND = features_BND + sincos_positions(images.positions_BN2, self.width).to(features_BND.dtype)
        return Features(tokens_BND, images.positions_BN2, images.valid_BN, (tokens_BND,) * len(reading.layers))
