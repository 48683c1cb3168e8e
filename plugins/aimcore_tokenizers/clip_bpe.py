"""CLIP's byte-pair encoding, from the file of merges that its authors released."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Self

from aimcore import Problem, component
from aimcore.io.text_files import DamagedText, decode_text, split_lines
from aimcore_tokenizers.clip_files import CLIP_PATTERN, END_OF_WORD
from aimcore_tokenizers.files import TokenizerFileError, file_problems, hash_of, library, read_file
from aimcore_tokenizers.huggingface import exported
from aimcore_tokenizers.sequences import SequenceTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NUM_MERGES = 49_152 - 256 - 2
"""Number of used lines of the file, as in CLIP's code. The vocabulary is 2 * 256 bytes, the merges, 2 special ids."""
VOCABULARY_SIZE = 2 * 256 + NUM_MERGES + 2
_LARGEST_FILE = 2**26
"""Largest number of unpacked bytes; the released file has 3 million."""
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


@component("clip_bpe", paper="arXiv:2103.00020")
class ClipBPE(SequenceTokenizer):
    """49,408 ids: CLIP's, given its ``bpe_simple_vocab_16e6.txt.gz`` (open-clip-torch ships it).

    CLIP's code also repairs wrongly decoded text and HTML entities: set ``repair_text``. A special token that a caption
    spells out is text here. Requires the extra ``text``.
    """

    path: str
    """The file of merges, gzipped: a path, or a URL that fsspec knows."""
    sha256: str
    """The hash of the file; :meth:`from_file` computes it."""
    begin: bool = True
    """Whether each text starts with the begin token, as in CLIP. Decoders with a begin vector need none."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and a hash that is not one."""
        return file_problems(self.path, self.sha256)

    @classmethod
    def from_file(cls, path: str, *, begin: bool = True, repair_text: bool = False) -> Self:
        """Return the tokenizer of a file with its current hash.

        Raises:
            DataNotFound: the file cannot be read.
        """
        return cls(path=path, sha256=hash_of(path), begin=begin, repair_text=repair_text)

    @property
    def vocabulary_size(self) -> int:
        """49,408, once the file is read."""
        return self._model.get_vocab_size()

    @property
    def begin_id(self) -> int | None:
        """49,406, or None without ``begin``."""
        return VOCABULARY_SIZE - 2 if self.begin else None

    @property
    def end_id(self) -> int:
        """49,407."""
        return VOCABULARY_SIZE - 1

    @property
    def padding_id(self) -> int:
        """0, as in CLIP's code. The exclamation mark has that id too, so recognise padding by its position."""
        return 0

    def tokens(self, text: str) -> Sequence[int]:
        """Return the ids of CLIP's code."""
        return self._model.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first end token; padding after it is ignored."""
        ids = [int(token) for token in ids]
        end = ids.index(self.end_id) if self.end_id in ids else len(ids)
        return self.text_of([token for token in ids[:end] if token < VOCABULARY_SIZE - 2])

    def text_of(self, ids: Sequence[int]) -> str:
        """Words and punctuation with single spaces between them: the encoding keeps no other white space."""
        return self._model.decode(list(ids)).strip()

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return CLIP's vocabulary as files of transformers.

        The end token pads there, as in other files of CLIP for transformers: the id 0 is an exclamation mark too.
        """
        specials = {"eos_token": _END, "pad_token": _END}
        if self.begin:
            specials["bos_token"] = _BEGIN
        return exported(self, self._read_model(), specials, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()

    @cached_property
    def _model(self) -> Tokenizer:
        return self._read_model()

    def _read_model(self) -> Tokenizer:
        merges = _merges_in(read_file(self.path, self.sha256), self.path)
        tokenizers = library("tokenizers", self.name)
        parts = _bytes_in_order()
        tokens = [*parts, *(part + END_OF_WORD for part in parts), *("".join(merge) for merge in merges)]
        vocabulary = {token: number for number, token in enumerate(tokens)} | {
            _BEGIN: VOCABULARY_SIZE - 2,
            _END: VOCABULARY_SIZE - 1,
        }
        unknown = next((part for merge in merges for part in merge if part not in vocabulary), None)
        if unknown is not None:
            raise TokenizerFileError(f"{self.path} merges {unknown!r}, which is neither a byte nor merged before")
        bpe = tokenizers.models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=END_OF_WORD)
        model: Tokenizer = tokenizers.Tokenizer(bpe)
        cut, decoders = tokenizers.pre_tokenizers, tokenizers.decoders
        words = cut.Split(tokenizers.Regex(CLIP_PATTERN), "removed", invert=True)
        model.pre_tokenizer = cut.Sequence([words, cut.ByteLevel(add_prefix_space=False, use_regex=False)])
        model.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(END_OF_WORD, " ")])
        return model


def _merges_in(content: bytes, path: str) -> list[tuple[str, str]]:
    """Return the merges of the file, best first, without its first line (a comment) and lines beyond the vocabulary."""
    try:
        with gzip.open(io.BytesIO(content)) as file:
            lines = split_lines(decode_text(file.read(_LARGEST_FILE), "it"))
    except (OSError, EOFError, zlib.error, DamagedText) as cause:
        raise TokenizerFileError(f"{path} is not gzipped text: {type(cause).__name__}: {cause}") from cause
    merges = [tuple(line.split()) for line in islice(lines, 1, 1 + NUM_MERGES)]
    pairs = [(merge[0], merge[1]) for merge in merges if len(merge) == 2]
    if len(pairs) != NUM_MERGES:
        raise TokenizerFileError(f"{path} has {len(pairs):,} merges after its first line, not {NUM_MERGES:,}")
    return pairs


def _bytes_in_order() -> list[str]:
    """Return the characters that represent bytes (GPT-2's): printable bytes first, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + number) for number in range(others))]
