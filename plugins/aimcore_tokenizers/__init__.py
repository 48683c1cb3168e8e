"""The built-in tokenizers of text."""

from collections.abc import Sequence

from aimcore import Tokenizer, hookimpl
from aimcore_tokenizers.bpe import BPE
from aimcore_tokenizers.clip_bpe import ClipBPE
from aimcore_tokenizers.sentence_piece import SentencePiece
from aimcore_tokenizers.utf8_bytes import Bytes

__all__ = ["BPE", "Bytes", "ClipBPE", "SentencePiece"]


@hookimpl
def tokenizers() -> Sequence[type[Tokenizer]]:
    """Supply the built-in tokenizers."""
    return [BPE, Bytes, ClipBPE, SentencePiece]
