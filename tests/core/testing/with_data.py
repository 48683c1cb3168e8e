"""Components without examples, because they need data from outside: each with what makes one, data and all."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from itertools import count, islice, product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import sentencepiece
from PIL import Image

from aimcore import Component
from aimcore_sources import FashionMNIST, ImageFolder
from aimcore_sources.fashion_mnist import CLASS_NAMES
from aimcore_tokenizers import BPE, ClipBPE, SentencePiece
from aimcore_tokenizers.clip_bpe import NUM_MERGES

CORPUS = ("a red shoe", "a red bag", "two red shoes", "a coat and a bag that will not fit") * 20


def image_folder(folder: Path) -> Component:
    for number in range(6):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (40 * number, 0, 0)).save(path)
    return ImageFolder(url=str(folder))


def fashion_mnist(folder: Path) -> Component:
    pixels = np.broadcast_to(np.arange(10_000, dtype=np.uint32)[:, None, None] % 256, (10_000, 28, 28))
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(10_000) % len(CLASS_NAMES))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return FashionMNIST(root=str(folder), split="test")


def bpe(folder: Path) -> Component:
    return BPE.train(CORPUS, folder / "tokenizer.json", vocabulary_size=280)


def clip_bpe(folder: Path) -> Component:
    # As many merges as the released file has, of bytes that no UTF-8 text has; a word but its last letter came before.
    words = ("".join(letters) for length in count(2) for letters in product("õö÷øùúûüýþÿÀÁ", repeat=length))
    lines = [f"{word[:-1]} {word[-1]}" for word in islice(words, NUM_MERGES)]
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["# version", *lines, "beyond the", "vocabulary used"]).encode(), 1))
    return ClipBPE.from_file(str(path))


def sentence_piece(folder: Path) -> Component:
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=content, vocab_size=40, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(content.getvalue())
    return SentencePiece.from_file(str(folder / "spiece.model"))


MAKERS: Mapping[str, Callable[[Path], Component]] = MappingProxyType(
    {
        "sources/fashion_mnist": fashion_mnist,
        "sources/image_folder": image_folder,
        "tokenizers/bpe": bpe,
        "tokenizers/clip_bpe": clip_bpe,
        "tokenizers/sentencepiece": sentence_piece,
    }
)
