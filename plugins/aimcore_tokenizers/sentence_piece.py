"""SentencePiece files, such as SigLIP's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from aimcore import Problem, component
from aimcore_tokenizers.files import FileFaults, TokenizerFileError, file_problems, hash_of, library, read_file
from aimcore_tokenizers.huggingface import CONFIG_FILE
from aimcore_tokenizers.sequences import SequenceTokenizer

FILE = "spiece.model"
"""Name of the file in folders of transformers."""
_SIGLIP = {"lower_case": True, "clean_whitespace": True, "delete_punctuation": True, "pads_with": "end"}
"""How transformers' ``SiglipTokenizer`` reads and pads texts."""


@component("sentencepiece", paper="arXiv:1808.06226; arXiv:2411.14402")
class SentencePiece(SequenceTokenizer):
    """The vocabulary of a SentencePiece ``.model`` file; AIMv2 uses that of SigLIP, with 32,000 pieces.

    AIMv2's training code repairs captions and reads them with SigLIP's own tokenizer class. ``repair_text`` and
    ``delete_punctuation`` give the same ids, with one exception: a caption that spells a special token, such as
    ``</s>``, is text here and that token there. Requires the extra ``text``.
    """

    path: str
    """The ``.model`` file: a path or URL."""
    sha256: str
    """The hash of the file; :meth:`from_file` computes it."""
    pads_with: Literal["end", "padding"] = "end"
    """The id that fills up a row: the end token, as in SigLIP's tokenizer, or the file's own padding."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and a hash that is not one."""
        return file_problems(self.path, self.sha256)

    @classmethod
    def from_file(
        cls,
        path: str,
        *,
        pads_with: Literal["end", "padding"] = "end",
        repair_text: bool = False,
        delete_punctuation: bool = False,
    ) -> Self:
        """Return the tokenizer of a file with its current hash.

        Args:
            path: the ``.model`` file.
            pads_with: see the field.
            repair_text: see the field; on in AIMv2.
            delete_punctuation: see the field; on in AIMv2.

        Raises:
            DataNotFound: the file cannot be read.
        """
        return cls(
            path=path,
            sha256=hash_of(path),
            pads_with=pads_with,
            repair_text=repair_text,
            delete_punctuation=delete_punctuation,
        )

    @property
    def vocabulary_size(self) -> int:
        """Number of pieces."""
        return int(self._model.get_piece_size())

    @property
    def end_id(self) -> int:
        """The id of the file's end of a sentence."""
        return self._special(int(self._model.eos_id()), "end of a sentence (eos)")

    @property
    def padding_id(self) -> int:
        """The id that fills up a row, see ``pads_with``."""
        return self.end_id if self.pads_with == "end" else self._special(int(self._model.pad_id()), "padding (pad)")

    def tokens(self, text: str) -> Sequence[int]:
        """Return the ids of the pieces."""
        with FileFaults(self.path, "sound SentencePiece model"):
            return list(self._model.encode(text))

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the joined pieces."""
        with FileFaults(self.path, "sound SentencePiece model"):
            return str(self._model.decode(list(ids)))

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return the file itself, and the config of transformers' ``SiglipTokenizer``, which gives the same ids.

        Raises:
            NotImplementedError: that class would clean or pad texts in another way.
        """
        wrong = [f"{name}={getattr(self, name)!r}" for name, value in _SIGLIP.items() if getattr(self, name) != value]
        if wrong:
            wanted = ", ".join(f"{name}={value!r}" for name, value in _SIGLIP.items())
            raise NotImplementedError(
                f"tokenizer {self.name!r} can be written only in SigLIP's form ({wanted}), and has {', '.join(wrong)}"
            )
        end, unknown = (str(self._model.id_to_piece(id)) for id in (self.end_id, self._model.unk_id()))
        config = {
            "tokenizer_class": "SiglipTokenizer",
            "model_max_length": context_length,
            "do_lower_case": True,
            "eos_token": end,
            "pad_token": end,
            "unk_token": unknown,
        }
        return {
            FILE: read_file(self.path, self.sha256),
            CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        }

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()

    @cached_property
    def _model(self) -> Any:
        content = read_file(self.path, self.sha256)
        sentencepiece = library("sentencepiece", self.name)
        if not content:
            raise TokenizerFileError(f"{self.path} is not a SentencePiece model: it is empty")
        with FileFaults(self.path, "SentencePiece model"):
            return sentencepiece.SentencePieceProcessor(model_proto=content)

    def _special(self, found: int, what: str) -> int:
        if found < 0:
            raise TokenizerFileError(f"{self.path} has no piece for the {what}: train the model with one")
        return found
