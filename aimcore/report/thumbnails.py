"""Small pictures of the samples of a source, for pages.

Lower-case m counts pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

import attrs
import numpy as np
from torch import Tensor

from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.messages import shortened
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Indices
from aimcore.data.streaming import stream
from aimcore.report.small_pages import picture_url

_SIDE, _LONGEST_CAPTION = 160, 120


@attrs.frozen
class Thumbnail:
    """A picture as a page shows it."""

    url: str
    """The picture itself, as a ``data:`` URL."""
    captions: str
    """The first caption of each kind."""


def thumbnails(
    source: OpenSource,
    indices_m: Indices,
    num_workers: int = 0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Mapping[int, Thumbnail | None]:
    """Return the pictures of samples by their number; None for samples that cannot be read.

    Args:
        source: the samples are read from it.
        indices_m: numbers of the samples.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).
    """
    loader, pictures = _Thumbnails(source, indices_m), dict[int, Thumbnail | None]()
    with closing(stream(loader, range(len(indices_m)), num_workers, 8)) as loaded:
        for number, (index, picture) in enumerate(zip(indices_m.tolist(), loaded, strict=True), 1):
            pictures[index] = picture
            progress("drawing", number, len(indices_m))
    return pictures


@attrs.frozen(eq=False)
class _Thumbnails:
    """Loads picture ``number``; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    indices_m: Indices

    def __getitem__(self, number: int) -> Thumbnail | None:
        """Return the picture; None if it cannot be read."""
        try:
            sample = self.source.read(int(self.indices_m[number]))
        except UnreadableSample:
            return None
        captions = [f"{kind}: {texts[0]}" for kind, texts in sample.captions.items() if texts]
        return Thumbnail(_url(sample.image), shortened("; ".join(captions), _LONGEST_CAPTION))


def _url(image_CHW: Tensor) -> str:
    image = image_CHW[:3] if image_CHW.shape[0] >= 3 else image_CHW[:1].expand(3, -1, -1)
    return picture_url(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), _SIDE)
