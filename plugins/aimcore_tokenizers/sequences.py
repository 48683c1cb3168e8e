"""The base of the text tokenizers: clean, add special tokens, cut, pad, and mark scored tokens.

Shape suffixes: B batch, T text tokens.
"""

from __future__ import annotations

import html
import string
from abc import abstractmethod
from collections.abc import Sequence

import torch

from aimcore import InvalidValue, Text, TextTokenizer, settings
from aimcore.io.text_files import flaw_in
from aimcore_tokenizers.files import library

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cleaned(text: str, *, lower_case: bool, clean_whitespace: bool) -> str:
    """Return the text in lower case, and with runs of white space replaced by one space, if requested."""
    if clean_whitespace:
        text = " ".join(text.split())
    return text.lower() if lower_case else text


@settings
class SequenceTokenizer(TextTokenizer):
    """Base of the tokenizers here. A subclass defines the ids of a text, and the special ids.

    A row of ids is the begin token (if there is one), the text, the end token, padding. A text that is too long is cut
    so that the end token still fits: every row has one, and the first one marks the end of the text.

    ``valid_BT`` marks scored tokens: begin token and text, and the end token only with ``supervise_end``. The end token
    of a text that was cut is never scored, because the text does not end there.
    """

    lower_case: bool = True
    """Captions in lower case (arXiv:2411.14402, the authors' training code)."""
    clean_whitespace: bool = True
    """Whether each run of white space becomes one space, and none is left at the ends."""
    repair_text: bool = False
    """Whether ftfy repairs wrongly decoded text and HTML is unescaped twice, as in the training code of CLIP and AIMv2.
    Requires the extra ``text``."""
    delete_punctuation: bool = False
    """Whether all of Python's ``string.punctuation`` is deleted, after ``repair_text`` and ``lower_case``, as in
    SigLIP's tokenizer class: "Blue-green" becomes "bluegreen". White space is cleaned afterwards."""
    supervise_end: bool = False
    """Whether the end token is scored. The paper's tokenizer (SigLIP's) pads with its end token, and padding is not
    scored: the end is never learnt, and a model that generates never stops. Off is faithful; turn it on to generate."""

    @abstractmethod
    def tokens(self, text: str) -> Sequence[int]:
        """Return the ids of a cleaned text, without special ones."""

    @abstractmethod
    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special ones."""

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Return ids and scored tokens, both ``[B, T]`` with T = ``context_length``.

        Raises:
            InvalidValue: the context has no room for the special tokens and one more token, or a text contains half of
            a
                character (a lone surrogate), which has no UTF-8.
        """
        framed = (self.end_id is not None) + (self.begin_id is not None)
        if context_length <= framed:
            message = f"must be at least {framed + 1}: {framed} special tokens and one more, got {context_length}"
            raise InvalidValue(type(self).__name__, [("context_length", message)])
        ids_BT = torch.full((len(texts), context_length), self.padding_id)
        valid_BT = torch.zeros(ids_BT.shape, dtype=torch.bool)
        for row, text in enumerate(texts):
            if flaw := flaw_in(text):
                raise InvalidValue(type(self).__name__, [("texts", f"in {text!r:.80}, {flaw}")])
            ids, num_valid = self._framed(self.tokens(self.cleaned(text)), context_length - framed)
            ids_BT[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
            valid_BT[row, :num_valid] = True
        return Text(ids_BT=ids_BT, valid_BT=valid_BT)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the first end token, without special tokens."""
        ids = [int(token) for token in ids]
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        return self.text_of([token for token in ids if token not in (self.begin_id, self.padding_id)])

    def cleaned(self, text: str) -> str:
        """Return the text as it is tokenized.

        Raises:
            MissingLibrary: ``repair_text`` needs ftfy, and it is not installed.
        """
        if self.repair_text:
            text = html.unescape(html.unescape(library("ftfy", self.name).fix_text(text)))
        text = cleaned(text, lower_case=self.lower_case, clean_whitespace=self.clean_whitespace)
        return " ".join(text.translate(_NO_PUNCTUATION).split()) if self.delete_punctuation else text

    def _framed(self, tokens: Sequence[int], room: int) -> tuple[list[int], int]:
        """Return a row without padding, and the number of its scored tokens."""
        begin = [] if self.begin_id is None else [self.begin_id]
        ids = [*begin, *tokens[:room]]
        if self.end_id is None:
            return ids, len(ids)
        scores_end = self.supervise_end and len(tokens) <= room
        return [*ids, self.end_id], len(ids) + scores_end
