"""The caption that is read of a sample: drawn in training, always the same one in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import attrs
import numpy as np

from aimcore.contracts.batches import Sample, Text
from aimcore.contracts.errors import NoCaption, UnreadableSample
from aimcore.contracts.randomness import keyed_integers, keyed_uniform
from aimcore.contracts.sources import OpenSource
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.io.text_files import flaw_in

TextRequest = tuple[TextTokenizer, int]
"""What an objective reads: a tokenizer and a context length."""


_ENOUGH = 16
"""Number of readable samples without a caption after which a source is taken to have none."""


def wanted_captions(sample: Sample, weights: Mapping[str, float] | None) -> dict[str, tuple[str, ...]]:
    """Captions of kinds that have a weight (None: all), without blank ones, by kind in the source's order.

    Raises:
        UnreadableSample: a wanted caption contains half of a character, which has no UTF-8.
    """
    found = {}
    for kind, texts in sample.captions.items():
        written = tuple(text for text in texts if text.strip())
        if written and (weights is None or weights.get(kind, 0) > 0):
            found[kind] = written
    for kind, texts in found.items():
        if flaw := next(filter(None, map(flaw_in, texts)), None):
            raise UnreadableSample(sample.identifier, f"in its caption of kind {kind!r}, {flaw}")
    return found


def has_captions(source: OpenSource, weights: Mapping[str, float] | None) -> bool:
    """Return whether one of the first readable samples has a wanted caption; True if none of them can be read."""
    num_read = 0
    for has_caption in islice(_have_captions(source, weights), _ENOUGH):
        if has_caption:
            return True
        num_read += 1
    return num_read == 0


def _have_captions(source: OpenSource, weights: Mapping[str, float] | None) -> Iterator[bool]:
    for index in range(min(len(source), 4 * _ENOUGH)):
        try:
            yield bool(wanted_captions(source.read(index), weights))
        except UnreadableSample:
            continue


@attrs.frozen
class Captions:
    """Reads captions of samples as ids.

    A sample without a caption of a wanted kind counts as unreadable: in training another is drawn in its place, in
    evaluation it is left out, and either way it is named and counted within ``data.max_unreadable``. A caption that is
    only white space counts as missing. A sample is unreadable if a wanted caption contains a lone surrogate.
    """

    tokenizer: TextTokenizer
    context_length: int
    weights: Mapping[str, float] | None = None
    """Weight of each kind of caption; those a sample lacks fall to the others. None: all kinds alike."""

    def drawn(self, sample: Sample, seed: int, number: int) -> str:
        """A caption drawn for sample ``number``: first the kind by its weight, then one of that kind.

        Raises:
            NoCaption: the sample has no wanted caption.
        """
        wanted = self._wanted(sample)
        kinds = sorted(wanted)  # the drawn kind does not depend on their order
        shares = np.cumsum([1.0 if self.weights is None else self.weights[kind] for kind in kinds])
        place = keyed_uniform(seed, "caption kind", number) * shares[-1]
        kind = kinds[min(int(np.searchsorted(shares, place, side="right")), len(kinds) - 1)]
        return wanted[kind][int(keyed_integers(seed, "caption", number, 0, len(wanted[kind])))]

    def first(self, sample: Sample) -> str:
        """The first caption of the source's first wanted kind.

        Raises:
            NoCaption: the sample has no wanted caption.
        """
        return next(iter(self._wanted(sample).values()))[0]

    def encode(self, texts: Sequence[str]) -> Text:
        """Return ids, ``[B, T]``."""
        return self.tokenizer.encode(texts, self.context_length)

    def _wanted(self, sample: Sample) -> dict[str, tuple[str, ...]]:
        found = wanted_captions(sample, self.weights)
        if not found:
            kinds = "of any kind" if self.weights is None else f"of {' or '.join(map(repr, self.weights))}"
            raise NoCaption(sample.identifier, f"it has no caption {kinds} (it has {sorted(sample.captions)})")
        return found
