"""A stand-in for a tokenizer that is unknown: texts must be given as ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from aimcore import AimcoreError, Problem, Text, TextTokenizer, at_least, component
from aimcore_tokenizers.files import LARGEST_VOCABULARY


class TextNeedsTokenizer(AimcoreError):
    """A text is to be encoded, and the tokenizer of the model is unknown."""


@component("given_ids")
class GivenIds(TextTokenizer):
    """The vocabulary of a model whose tokenizer is not at hand: it knows ids, and encodes and decodes no text.

    The tokenizer is not part of a file of weights. A model that is loaded without one reads ids that were made
    elsewhere.
    """

    size: int
    """Number of ids."""
    end: int | None = None
    """The id that ends a text; None if there is none."""
    padding: int = 0
    """The id that fills up a row."""

    def problems(self) -> Iterable[Problem]:
        """Yield ids outside of the vocabulary."""
        yield from at_least("size", self.size, 1, LARGEST_VOCABULARY)
        yield from at_least("padding", self.padding, 0, self.size - 1)
        if self.end is not None:
            yield from at_least("end", self.end, 0, self.size - 1)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return self.size

    @property
    def begin_id(self) -> int | None:
        """None: ids are given as they are."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id that ends a text."""
        return self.end

    @property
    def padding_id(self) -> int:
        """The id that fills up a row."""
        return self.padding

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        """Refuse texts.

        Raises:
            TextNeedsTokenizer: always.
        """
        raise TextNeedsTokenizer(
            f"the tokenizer of this model with {self.size:,} ids is unknown: give one (tokenizer=), such as "
            "ClipBPE.from_file(PATH) for CLIP's 49,408 ids, or put the tokenizer.json (or SigLIP's spiece.model) next "
            "to the weights, or give ids"
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Refuse ids.

        Raises:
            TextNeedsTokenizer: always.
        """
        raise TextNeedsTokenizer(
            f"the tokenizer of this model with {self.size:,} ids is unknown: give one (tokenizer=)"
        )

    def export(self, context_length: int) -> Mapping[str, bytes]:
        """Return no files: there is no tokenizer."""
        return {}

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because no text can be encoded."""
        return ()
