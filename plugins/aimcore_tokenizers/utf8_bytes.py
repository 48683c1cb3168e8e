"""Text as bytes: without a file, without training, and without unknown tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from aimcore import component
from aimcore_tokenizers.files import library
from aimcore_tokenizers.huggingface import exported
from aimcore_tokenizers.sequences import SequenceTokenizer

_PADDING, _END, _BEGIN = 0, 1, 2
_NUM_SPECIAL = 3


@component("bytes")
class Bytes(SequenceTokenizer):
    """The bytes of a text in UTF-8, with ids from 3 on; 0 is padding, 1 the end, 2 the begin token.

    A text that is cut may end within a character, which decodes to U+FFFD.

    >>> Bytes().tokens("ab")
    [100, 101]
    >>> Bytes().text_of([100, 101, 1, 0])
    'ab'
    """

    begin: bool = False
    """Whether each text starts with a begin token. Decoders with a begin vector need none."""

    @property
    def vocabulary_size(self) -> int:
        """259, with or without a begin token."""
        return _NUM_SPECIAL + 256

    @property
    def begin_id(self) -> int | None:
        """2, or None without ``begin``."""
        return _BEGIN if self.begin else None

    @property
    def end_id(self) -> int:
        """1."""
        return _END

    @property
    def padding_id(self) -> int:
        """0."""
        return _PADDING

    def tokens(self, text: str) -> Sequence[int]:
        """Return one id per byte."""
        return [byte + _NUM_SPECIAL for byte in text.encode()]

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        return bytes(token - _NUM_SPECIAL for token in ids if token >= _NUM_SPECIAL).decode(errors="replace")

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return a vocabulary of bytes without merges, as files of transformers."""
        tokenizers = library("tokenizers", self.name)
        specials = {"pad_token": "<padding>", "eos_token": "<end>", "bos_token": "<begin>"}
        vocabulary = {token: number for number, token in enumerate(specials.values())}
        vocabulary |= {mark: byte + _NUM_SPECIAL for byte, mark in enumerate(_marks())}
        model = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        if not self.begin:
            del specials["bos_token"]
        return exported(self, model, specials, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """As in the paper, and as a model that generates requires it."""
        return cls(), cls(begin=True, supervise_end=True)


def _marks() -> list[str]:
    """Return the character that stands for each byte in byte-level vocabularies (GPT-2's)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (chr(256 + number) for number in range(256 - len(printable)))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]
