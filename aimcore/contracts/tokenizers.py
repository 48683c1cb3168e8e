"""Tokenizers: components that encode text or image patches as discrete ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor, nn

from aimcore.contracts.batches import Text
from aimcore.contracts.component import Checked, Component
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.targets import Sees


class Tokenizer(Component, ABC):
    """A component that encodes text or images as ids. Subclass :class:`ImageTokenizer` or :class:`TextTokenizer`."""

    __slots__ = ()
    role: ClassVar[str] = "tokenizers"


class ImageTokenizer(Tokenizer):
    """Encodes every patch of an image as a code, for the target ``codes``.

    A tokenizer without weights implements :meth:`encode`, and may implement :meth:`decode`. A tokenizer with weights
    builds an :class:`ImageTokenizerModule` instead. Callers call :func:`aimcore.built_tokenizer`, which returns a
    module for both.

    Tokenizers read a *view*: pixels ``[B, C, H, W]`` on the scale from 0 to 1, never normalised, so that codes do not
    depend on the normalisation of a run. A tokenizer that needs another range maps it itself.
    """

    __slots__ = ()
    fitting: ClassVar[type[TokenizerFit] | None] = None
    """The settings of a fit, for ``aimcore tokenizer fit``; None if the tokenizer is not fitted by this command."""

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Size of the code book. It may read the tokenizer's file.

        Raises:
            AimcoreError: the file is missing or not the recorded one.
        """

    @property
    def sees(self) -> Sees:
        """Whether the code of a patch depends on the patch alone or on the whole image, as convolutions do."""
        return "patch"

    @property
    def pixels_per_patch(self) -> int | None:
        """Height and width of the view in pixels per row and column of the grid; None reads the patches as they are.

        A dVAE with a total stride of 8 gives one code per 8 x 8 pixels: for a grid of 16 x 16 patches it needs a view
        of 128 px, whatever size the patches have. It may read the tokenizer's file.
        """
        return None

    @classmethod
    def from_file(cls, path: str) -> Self:
        """Return the tokenizer of a file, with the file's current hash.

        Raises:
            NotImplementedError: this tokenizer has no file.
        """
        raise NotImplementedError(f"tokenizer {cls.name!r} has no file")

    @classmethod
    def convert(cls, files: Sequence[str], path: Path) -> None:
        """Convert published files of this kind of tokenizer to a file that :meth:`from_file` reads. Optional.

        Raises:
            NotImplementedError: this tokenizer converts nothing.
            AimcoreError: the files cannot be read, or hold something else.
        """
        raise NotImplementedError(f"tokenizer {cls.name!r} converts no published files")

    def build(self, patch_size: int, num_channels: int) -> ImageTokenizerModule | None:
        """Build the module of a tokenizer with weights; return None for a tokenizer without.

        Args:
            patch_size: side in pixels of the patches of the images.
            num_channels: colour channels of the view.

        Raises:
            AimcoreError: the file is missing, is not the recorded one, or is made for other patches or channels.
        """
        return None

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """Return the code of each patch of ``grid``, ``[B, N]`` int64, in raster order.

        Raises:
            NotImplementedError: this tokenizer has weights; its module encodes.
        """
        raise NotImplementedError(f"tokenizer {self.name!r} encodes with its module: call aimcore.built_tokenizer")

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        """Return approximate pixels of codes, ``[B, C, H, W]`` on the scale from 0 to 1, in the size of the view.

        Args:
            codes_BN: a code for each patch of ``grid``, in raster order.
            grid: rows and columns of patches.
            view_BCHW: the true view, for tokenizers that hold less information than pixels; None where it is unknown.

        Raises:
            NotImplementedError: codes of this tokenizer cannot be decoded.
        """
        raise NotImplementedError(f"codes of tokenizer {self.name!r} cannot be decoded")


class ImageTokenizerModule(nn.Module, ABC):
    """A module that encodes and decodes, for tokenizers with weights.

    :func:`aimcore.built_tokenizer` freezes it, as :func:`aimcore.built_target` does with targets. It is always in eval
    mode.
    """

    in_checkpoints: ClassVar[bool] = True
    """Whether checkpoints contain its weights. False is allowed if ``build`` reads the weights from a file and checks
    its hash."""
    tokenizer: ImageTokenizer
    """The component that built it; :func:`aimcore.built_tokenizer` sets it."""

    def forward(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """Return codes, as :meth:`encode` does."""
        return self.encode(view_BCHW, grid)

    @abstractmethod
    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """Return the code of each patch of ``grid``, ``[B, N]`` int64, in raster order.

        ``view_BCHW`` may have any floating type: convert it to the type of your weights.
        """

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        """Return approximate pixels; see :meth:`ImageTokenizer.decode`. Optional.

        Raises:
            NotImplementedError: codes of this tokenizer cannot be decoded.
        """
        return self.tokenizer.decode(codes_BN, grid, view_BCHW)

    def train(self, mode: bool = True) -> ImageTokenizerModule:
        """Stay in eval mode for every ``mode``."""
        return super().train(False)


class WeightlessTokenizer(ImageTokenizerModule):
    """The module of an image tokenizer without weights."""

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """Return the codes of the component."""
        return self.tokenizer.encode(view_BCHW, grid)


class FittingData(ABC):
    """Images that a tokenizer is fitted on. The core implements it for ``aimcore tokenizer fit``."""

    patch_size: int
    """Side of a square patch, in pixels."""
    num_channels: int
    """Number of channels of the images."""
    record: str
    """Where the images come from, as JSON: a fit writes it into the tokenizer's file."""

    @abstractmethod
    def views(self, num_images: int, pixels_per_patch: int | None = None) -> Iterator[Tensor]:
        """Yield views ``[B, C, H, W]`` of the first ``num_images`` training crops, the same in every call.

        Raises:
            AimcoreError: the images cannot be read.
        """

    @abstractmethod
    def progress(self, doing: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units of ``doing`` are finished."""


class TokenizerFit(Checked, ABC):
    """Settings of a fit. Subclass it with :func:`aimcore.settings`; ``--set`` changes fields."""

    __slots__ = ()

    @abstractmethod
    def fit(self, data: FittingData, path: Path) -> None:
        """Fit a tokenizer to ``data``, and write its file.

        Raises:
            AimcoreError: the images cannot be read or do not suffice, or the file cannot be written.
        """


class TextTokenizer(Tokenizer):
    """Encodes text as a sequence of ids: a begin token (if there is one), the text, an end token, padding."""

    __slots__ = ()

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """V, the number of ids, special ones included. It may read the tokenizer's file.

        Raises:
            AimcoreError: the file is missing or not the recorded one, or a library is not installed.
        """

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the tokenizer's file; None without a file. A field with this name may override it."""
        return None

    @property
    def begin_id(self) -> int | None:
        """The id before every text; None without a begin token."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id after every text, cut or not; None without an end token. It may equal ``padding_id``."""
        return None

    @property
    def padding_id(self) -> int:
        """The id that pads a row after the end of the text."""
        return 0

    @abstractmethod
    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Encode ``texts``, cut and padded at the end to ``context_length``; ``valid_BT`` marks scored tokens."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` up to the first end token, without special tokens."""

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return files, by name, with which ``transformers.AutoTokenizer`` gives the ids of :meth:`encode`. Optional.

        Raises:
            NotImplementedError: it cannot be written as such files.
        """
        raise NotImplementedError(f"tokenizer {self.name!r} cannot be written as the files of another library")
