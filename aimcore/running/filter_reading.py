"""Reading of samples for a filter: each is read once, for everything that the steps need.

Shape suffixes: C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.sources import OpenSource
from aimcore.data.captions import wanted_captions
from aimcore.data.perceptual_hash import perceptual_hash
from aimcore.encoders.preprocessing import EncoderTransform
from aimcore.running.source_measurements import pixel_digest

CHUNK = 64
"""Number of samples that are read, and at most embedded, together."""


@attrs.frozen(eq=False)
class ReadSample:
    """What the steps need of a sample."""

    index: int
    identifier: str
    cause: str = ""
    """Why it cannot be read; empty if it can."""
    hash: int = 0
    """Its perceptual hash."""
    digest: int = 0
    """Equal for equal pixels."""
    embedded_CHW: Tensor | None = None
    """As the encoder of features reads it, ``uint8``."""
    scored_CHW: Tensor | None = None
    """As the encoder of scores reads it, ``uint8``."""
    caption: str | None = None
    """The caption that is scored."""
    cause_of_caption: str = ""
    """Why the captions cannot be read; empty if they can."""


@attrs.frozen(eq=False)
class SampleReader:
    """Reads chunk ``number`` of a source; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    is_hashed: bool
    embeds: EncoderTransform | None = None
    """The transform of the encoder of features."""
    scores: EncoderTransform | None = None
    """The transform of the encoder of scores."""
    weights: Mapping[str, float] | None = None
    """Kinds of captions that are read; None for all."""

    def __len__(self) -> int:
        """Number of chunks."""
        return -(-len(self.source) // CHUNK)

    def __getitem__(self, number: int) -> list[ReadSample]:
        """Read the samples of a chunk."""
        return [self._read(index) for index in range(number * CHUNK, min(len(self.source), (number + 1) * CHUNK))]

    def _read(self, index: int) -> ReadSample:
        try:
            sample = self.source.read(index)
        except UnreadableSample as failure:
            return ReadSample(index, failure.identifier, cause=failure.cause)
        image = sample.image
        embedded = _rendered(self.embeds, image)
        scored = embedded if self.scores == self.embeds else _rendered(self.scores, image)
        hashes = (perceptual_hash(image), pixel_digest(image)) if self.is_hashed else (0, 0)
        read = ReadSample(index, sample.identifier, "", *hashes, embedded_CHW=embedded, scored_CHW=scored)
        if self.scores is None:
            return read
        try:
            captions = wanted_captions(sample, self.weights)
        except UnreadableSample as failure:
            return attrs.evolve(read, cause_of_caption=failure.cause)
        return attrs.evolve(read, caption=next(iter(captions.values()))[0] if captions else None)


def _rendered(transform: EncoderTransform | None, image_CHW: Tensor) -> Tensor | None:
    # A copy, because a view of the decoded image would keep the whole image in memory.
    return None if transform is None else transform.rendered(image_CHW).clone()


def embedded(images: Sequence[Tensor], embed: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """Return the features ``[B, D]`` of rendered images, of which there is at least one.

    Args:
        images: rendered images. Images of one size share a forward pass.
        embed: returns the features of images of one size.
    """
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, rendered_CHW in enumerate(images):
        sizes.setdefault(tuple(rendered_CHW.shape), []).append(place)
    found = torch.cat([embed([images[place] for place in places]) for places in sizes.values()])
    order = np.argsort([place for places in sizes.values() for place in places])
    return found[torch.from_numpy(order).to(found.device)]
