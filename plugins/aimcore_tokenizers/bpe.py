"""Byte-pair encoding by Hugging Face's ``tokenizers``: any ``tokenizer.json``, or one trained on a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aimcore import InvalidValue, Problem, component
from aimcore.io.atomic_files import make_folder, write_atomically
from aimcore.io.text_files import DamagedText, decode_text, parse_json
from aimcore_tokenizers.files import (
    LARGEST_VOCABULARY,
    FileFaults,
    TokenizerFileError,
    file_problems,
    hash_of,
    library,
    read_file,
)
from aimcore_tokenizers.huggingface import exported
from aimcore_tokenizers.sequences import SequenceTokenizer, cleaned

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, END, BEGIN = "<padding>", "<end>", "<begin>"
"""Special tokens of the files that :meth:`BPE.train` writes; their ids are 0, 1 and 2."""
_NUM_BYTES = 256


@component("bpe")
class BPE(SequenceTokenizer):
    """The vocabulary of a ``tokenizer.json``, with its own normaliser and pre-tokenizer.

    This component defines begin, end and padding tokens, and the truncation; those of the file are ignored. A special
    token that a caption spells out is text like any other. Requires the extra ``text``.
    """

    path: str
    """A ``tokenizer.json``: a path, or a URL that fsspec knows."""
    sha256: str
    """The hash of the file; :meth:`from_file` computes it."""
    begin: str | None = None
    """The token before every text; None adds none, which suits decoders with a begin vector."""
    end: str = END
    """The token after every text."""
    padding: str = PADDING
    """The token that fills up a row after the end; it may be the end token."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and a hash that is not one."""
        return file_problems(self.path, self.sha256)

    @classmethod
    def from_file(cls, path: str, *, begin: str | None = None, end: str = END, padding: str = PADDING) -> Self:
        """Return the tokenizer of a file with its current hash.

        Raises:
            DataNotFound: the file cannot be read.
        """
        return cls(path=path, sha256=hash_of(path), begin=begin, end=end, padding=padding)

    @classmethod
    def train(cls, texts: Iterable[str], path: Path, *, vocabulary_size: int, lower_case: bool = True) -> Self:
        """Fit a byte-level vocabulary to ``texts`` and write it to ``path``; the same texts give the same file.

        Args:
            texts: the corpus; white space is cleaned as in training.
            path: path of the new ``tokenizer.json``.
            vocabulary_size: largest number of ids, including the three special tokens and 256 bytes.
            lower_case: whether captions will be read in lower case.

        Raises:
            InvalidValue: the vocabulary has no room for the bytes.
        """
        specials = [PADDING, END, BEGIN]
        if vocabulary_size < _NUM_BYTES + len(specials):
            message = f"must be at least {_NUM_BYTES + len(specials)} (bytes, special tokens), got {vocabulary_size}"
            raise InvalidValue(cls.__name__, [("vocabulary_size", message)])
        tokenizers = library("tokenizers", cls.name)
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=specials,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        corpus = (cleaned(text, lower_case=lower_case, clean_whitespace=True) for text in texts)
        model.train_from_iterator(corpus, trainer)
        content = model.to_str(pretty=True).encode()
        make_folder(path.parent)
        write_atomically(path, content)
        return cls(path=str(path), sha256=hashlib.sha256(content).hexdigest(), lower_case=lower_case)

    @property
    def vocabulary_size(self) -> int:
        """The highest id of the file, plus one."""
        return self._size

    @property
    def begin_id(self) -> int | None:
        """The id of ``begin``."""
        return None if self.begin is None else self._id_of(self.begin, "begin")

    @property
    def end_id(self) -> int:
        """The id of ``end``."""
        return self._id_of(self.end, "end")

    @property
    def padding_id(self) -> int:
        """The id of ``padding``."""
        return self._id_of(self.padding, "padding")

    def tokens(self, text: str) -> Sequence[int]:
        """Return the ids from the file's model."""
        with FileFaults(self.path, "sound tokenizer.json"):
            return self._model.encode(text, add_special_tokens=False).ids

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text from the file's decoder."""
        with FileFaults(self.path, "sound tokenizer.json"):
            return self._model.decode(list(ids), skip_special_tokens=True)

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return the file with the begin and end tokens of this component, and the config of transformers."""
        specials = {"eos_token": self.end, "pad_token": self.padding}
        if self.begin is not None:
            specials["bos_token"] = self.begin
        return exported(self, self._read_model(), specials, context_length)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()

    @cached_property
    def _model(self) -> Tokenizer:
        return self._read_model()

    def _read_model(self) -> Tokenizer:
        text = _checked(read_file(self.path, self.sha256), self.path)
        tokenizers = library("tokenizers", self.name)
        with FileFaults(self.path, "tokenizer.json"):
            model: Tokenizer = tokenizers.Tokenizer.from_str(text)
        model.no_truncation()
        model.no_padding()
        model.encode_special_tokens = True
        return model

    @cached_property
    def _size(self) -> int:
        size = max(self._model.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not 0 < size <= LARGEST_VOCABULARY:
            raise TokenizerFileError(f"{self.path} is not a tokenizer.json: it has ids up to {size - 1:,}")
        return size

    def _id_of(self, token: str, field: str) -> int:
        found = self._model.token_to_id(token)
        if found is None:
            raise TokenizerFileError(
                f"{self.path} has no token {token!r}, which is the {field} of tokenizer {self.name!r}: name one of the "
                f"file's own, such as {self._special_tokens()}"
            )
        return found

    def _special_tokens(self) -> list[str]:
        return [str(token.content) for token in self._model.get_added_tokens_decoder().values()][:8]


def _checked(content: bytes, path: str) -> str:
    """Return the text of a ``tokenizer.json``, checked because the library's errors say little about other files."""
    try:
        text = decode_text(content, "it")
        document = parse_json(text, "it")
    except DamagedText as cause:
        raise TokenizerFileError(f"{path} is not a tokenizer.json: {cause}") from cause
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise TokenizerFileError(f"{path} is not a tokenizer.json: it has no 'model'")
    return text
