"""The built-in tokenizers of text and images."""

from collections.abc import Sequence

from aimcore import Tokenizer, hookimpl
from aimcore_tokenizers.bpe import BPE
from aimcore_tokenizers.clip_bpe import ClipBPE
from aimcore_tokenizers.dvae import DVAE
from aimcore_tokenizers.given_ids import GivenIds
from aimcore_tokenizers.kmeans import KMeans
from aimcore_tokenizers.kmeans_fitting import KMeansFit
from aimcore_tokenizers.sentence_piece import SentencePiece
from aimcore_tokenizers.utf8_bytes import Bytes

__all__ = ["BPE", "DVAE", "Bytes", "ClipBPE", "GivenIds", "KMeans", "KMeansFit", "SentencePiece"]


@hookimpl
def tokenizers() -> Sequence[type[Tokenizer]]:
    """Supply the built-in tokenizers."""
    return [BPE, Bytes, ClipBPE, DVAE, GivenIds, KMeans, SentencePiece]
