"""The encoder of a discrete VAE as a trunk, so that it is trained like every other one.

Shape suffixes: B batch, C channels, H W pixels, R C rows and columns of the grid, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from aimcore import Features, Images, Problem, Reading, Trunk, TrunkModule, component
from aimcore.contracts.images import unpatchify
from aimcore_tokenizers.dvae_networks import Encoder, Resampling, encoder_problems, with_margin


@component("dvae_encoder", paper="arXiv:2102.12092, appendix A")
class DVAEEncoder(Trunk):
    """Convolutions with residual blocks and max-pooling: the encoder of DALL-E's discrete VAE, without its logits.

    The objective ``dvae`` trains it. It reads pixels from 0 to 1 (it undoes the normalisation of the run), mapped to
    [0.1, 0.9]. A patch has as many pixels as the total stride: 8 with four groups.
    """

    width: int = 256
    """Channels of the first group; each further group has twice as many."""
    groups: int = 4
    blocks_per_group: int = 2
    num_channels: int = 3
    resampling: Resampling = "pool"
    """Between two groups: ``pool`` takes the maximum of 2 x 2 pixels, as DALL-E does; ``shuffle``, an extra of ours,
    moves them into channels, so that narrow encoders keep positions within a patch."""

    @property
    def patch_size(self) -> int:
        """The total stride."""
        return int(2 ** (self.groups - 1))

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that no encoder has."""
        return encoder_problems(self.width, self.groups, self.blocks_per_group, self.num_channels)

    def build(self) -> DVAEEncoderModule:
        """Build the encoder with fresh weights."""
        return DVAEEncoderModule(self)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A small encoder with a stride of 4."""
        return (cls(width=8, groups=3, blocks_per_group=2),)


class DVAEEncoderModule(TrunkModule):
    """The module of :class:`DVAEEncoder`."""

    def __init__(self, config: DVAEEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            config.width, config.groups, config.blocks_per_group, config.num_channels, config.resampling
        )
        self.width, self.depth = self.encoder.width, config.blocks_per_group
        self.patch_size, self.num_channels = config.patch_size, config.num_channels

    def forward(self, images: Images, reading: Reading) -> Features:
        """Return the maps of the last group as tokens; ``reading.layers`` are the blocks of that group."""
        dtype = self.encoder.input.weight.dtype
        unit_BCHW = unpatchify(images.unit_patches_BNF, images.grid, images.patch_size)
        outputs = [maps_BDRC.flatten(2).transpose(1, 2) for maps_BDRC in self.encoder(with_margin(unit_BCHW).to(dtype))]
        layers = tuple(outputs[index] for index in reading.layers)
        return Features(outputs[-1], images.positions_BN2, images.valid_BN, layers)
