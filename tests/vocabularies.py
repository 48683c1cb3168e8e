"""Vocabularies in files, for tests of tokenizers."""

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import sentencepiece

from aimcore_tokenizers.clip_bpe import NUM_MERGES

CLIP_MERGES = Path(__file__).parent / "plugins" / "tokenizers" / "clip_merges.json"


def fillers() -> Iterator[str]:
    """Merges of bytes that no UTF-8 text has; each first part but a single byte was merged before."""
    for length in range(2, 6):
        for word in product("õö÷øùúûüýþÿÀÁ", repeat=length):
            yield f"{''.join(word[:-1])} {word[-1]}"


def write_clip_merges(folder: Path) -> str:
    """A file like CLIP's in which the merges of :data:`CLIP_MERGES` stand at their places, and fillers elsewhere."""
    merges, others = json.loads(CLIP_MERGES.read_text()), fillers()
    lines = [merges.get(str(place)) or next(others) for place in range(NUM_MERGES)]
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["# version", *lines, "beyond the", "vocabulary used"]).encode(), 1))
    return str(path)


def write_sentencepiece(folder: Path, texts: Sequence[str], **options: int) -> str:
    """A trained model whose special ids are SigLIP's: padding 0, end 1, unknown 2, no begin."""
    content = io.BytesIO()
    specials = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=content, vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **specials,
    )  # fmt: skip
    path = folder / "spiece.model"
    path.write_bytes(content.getvalue())
    return str(path)
