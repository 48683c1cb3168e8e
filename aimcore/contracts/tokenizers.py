"""Whatever gives text or image patches discrete ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.component import Component
from aimcore.contracts.images import PatchGrid


class Tokenizer(Component, ABC):
    """Anything that gives discrete ids. Subclass :class:`ImageTokenizer` or :class:`TextTokenizer`."""

    __slots__ = ()
    role: ClassVar[str] = "tokenizers"


class ImageTokenizer(Tokenizer):
    """Gives every patch of a view a code."""

    __slots__ = ()

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Size of the code book."""

    @abstractmethod
    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """``[B, N]`` int64 codes in raster order."""

    @abstractmethod
    def decode(self, ids_BN: Tensor) -> Tensor:
        """Pixels for codes, as far as the tokenizer can."""


class TextTokenizer(Tokenizer):
    """Gives text a sequence of ids: a begin token (where there is one), the text, an end token, padding."""

    __slots__ = ()

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """V: number of ids, special ones included. It reads the tokenizer's file, where there is one.

        Raises:
            AimcoreError: the file is missing or another than recorded, or a library is not installed.
        """

    @property
    def sha256(self) -> str | None:
        """Hash of the file it was fitted to; None where there is none. A field of that name will do."""
        return None

    @property
    def begin_id(self) -> int | None:
        """The id that stands before every text; None where none does."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id that stands behind every text, cut or not; None where none does. It may be the padding's too."""
        return None

    @property
    def padding_id(self) -> int:
        """What fills a row up behind the end."""
        return 0

    @abstractmethod
    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Ids of ``texts``, cut and padded at the end to ``context_length``; ``valid_BT`` marks what is scored."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first end, without special ones."""
