"""Tokenizers: components that encode text or image patches as discrete ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.component import Component
from aimcore.contracts.images import PatchGrid


class Tokenizer(Component, ABC):
    """A component that encodes text or images as ids. Subclass :class:`ImageTokenizer` or :class:`TextTokenizer`."""

    __slots__ = ()
    role: ClassVar[str] = "tokenizers"


class ImageTokenizer(Tokenizer):
    """Encodes every patch of a view as a code."""

    __slots__ = ()

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Size of the code book."""

    @abstractmethod
    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """Return the code of each patch of ``grid``, ``[B, N]`` int64, in raster order."""

    @abstractmethod
    def decode(self, ids_BN: Tensor) -> Tensor:
        """Return approximate pixels of codes, ``[B, C, H, W]``."""


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
