"""The built-in tokenizers of text."""

from collections.abc import Sequence

from aimcore import Tokenizer, hookimpl
from aimcore_tokenizers.utf8_bytes import Bytes

__all__ = ["Bytes"]


@hookimpl
def tokenizers() -> Sequence[type[Tokenizer]]:
    """Every built-in tokenizer."""
    return [Bytes]
