"""Codes of a discrete VAE, whose convolutions see beyond the patch.

Shape suffixes: B batch, C channels, H W pixels, R C rows and columns of the grid, D width, N patches, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import attrs
import torch
from torch import Tensor, nn

from aimcore import ImageTokenizerModule, PatchGrid, component
from aimcore.contracts.targets import Sees
from aimcore.io.tokenizer_files import TokenizerRecord, write_tokenizer
from aimcore_tokenizers.dalle_files import dalle_state
from aimcore_tokenizers.dvae_networks import Decoder, DVAEShape, Encoder, with_margin
from aimcore_tokenizers.fitted import FittedTokenizer, WrongPatches

State = Mapping[str, Tensor]


@component("dvae", paper="arXiv:2102.12092, section 2.1; arXiv:2401.08541, Table 3a")
class DVAE(FittedTokenizer):
    """The most likely code of a discrete VAE's encoder: our own (objective ``dvae``), or DALL-E's published one.

    The encoder has a total stride of 8 in DALL-E's size, so that the view has 8 x 8 pixels per patch. Its convolutions
    overlap: a code depends on more than its own patch.
    """

    @property
    def num_codes(self) -> int:
        """K, from the file."""
        return self.dvae_shape.num_codes

    @property
    def sees(self) -> Sees:
        """The image."""
        return "image"

    @property
    def pixels_per_patch(self) -> int | None:
        """The total stride of the encoder, from the file."""
        return self.dvae_shape.stride

    @property
    def dvae_shape(self) -> DVAEShape:
        """The sizes of the networks.

        Raises:
            DataNotFound: the file cannot be read.
            TokenizerFileError: it is damaged, or belongs to another tokenizer.
        """
        return self.shape(DVAEShape)

    def build(self, patch_size: int, num_channels: int) -> DVAEModule:
        """Read the networks; patches may have any size.

        Raises:
            WrongPatches: they read other channels.
            TokenizerFileError: the file is not the recorded one, or is damaged.
        """
        shape = self.dvae_shape
        if num_channels != shape.num_channels:
            raise WrongPatches(
                f"{self.path} reads {shape.num_channels} channels, and the images have {num_channels}: give data.mean "
                "and data.std one value for each of the tokenizer's channels"
            )
        with torch.device("meta"):
            module = DVAEModule(shape)
        given = self.tensors()
        self.require_tensors(given, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})
        module.load_state_dict({name: tensor.float() for name, tensor in given.items()}, assign=True)
        return module.to(torch.get_default_device())

    @classmethod
    def convert(cls, files: Sequence[str], path: Path) -> None:
        """Convert the published encoder and decoder of DALL-E, ``encoder.pkl`` and ``decoder.pkl``.

        Nothing is unpickled: only tensors are read from the files.

        Raises:
            DataNotFound: a file cannot be read.
            TokenizerFileError: a file is not such a network, or the two do not belong together.
        """
        shape, state = dalle_state(files)
        write_dvae(path, shape, state, fitted_on="")


class DVAEModule(ImageTokenizerModule):
    """The module of :class:`DVAE`."""

    in_checkpoints: ClassVar[bool] = False

    def __init__(self, shape: DVAEShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape.width, shape.groups, shape.blocks_per_group, shape.num_channels, shape.resampling)
        self.logits = nn.Linear(self.encoder.width, shape.num_codes)
        self.decoder = Decoder(shape)

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """``[B, N]``: the most likely code of each patch."""
        pixels_BCHW = with_margin(view_BCHW.to(self.logits.weight.dtype))
        maps_BDRC = self.encoder(pixels_BCHW)[-1]
        logits_BNK: Tensor = self.logits(maps_BDRC.relu().flatten(2).transpose(1, 2))
        return logits_BNK.argmax(-1)

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        """``[B, C, H, W]``: the mode of the decoder's distribution of each pixel."""
        codes_BRC = codes_BN.unflatten(1, (grid.rows, grid.columns))  # type: ignore[no-untyped-call]
        return self.decoder.pixels(self.decoder.of_codes(codes_BRC))


def write_dvae(path: Path, shape: DVAEShape, state: State, *, fitted_on: str) -> None:
    """Write the file of a discrete VAE; ``state`` is that of a :class:`DVAEModule`.

    Raises:
        CannotWrite: the system refuses to write it.
    """
    settings = attrs.asdict(cast(Any, shape))
    record = TokenizerRecord(tokenizer=DVAE.name, settings=settings, fitted_on=fitted_on)
    write_tokenizer(path, record, {name: tensor.float() for name, tensor in state.items()})
