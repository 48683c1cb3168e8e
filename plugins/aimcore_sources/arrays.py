"""Grey images in memory, returned as RGB."""

import numpy as np
import numpy.typing as npt
import torch

from aimcore import OpenSource, Sample, Source

Bytes = npt.NDArray[np.uint8]


class OpenArrays(OpenSource):
    """An open source over ``uint8`` arrays of images ``[n, H, W]`` and labels ``[n]``."""

    def __init__(self, source: Source, images_nHW: Bytes, labels_n: Bytes, class_names: tuple[str, ...]) -> None:
        self._source = source
        self._images_nHW = images_nHW
        self._labels_n = labels_n
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._labels_n)

    def read(self, index: int) -> Sample:
        """The image as ``uint8 [3, H, W]``: three equal channels."""
        # A copy: the three channels must not share memory with each other or with the array.
        image_CHW = torch.from_numpy(np.repeat(self._images_nHW[index][None], 3, axis=0))
        return Sample(image=image_CHW, identifier=f"{self._source.name}/{index}", label=self.label(index))

    def label(self, index: int) -> int:
        """The label, from the array."""
        return int(self._labels_n[index])

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return the arrays."""
        return self._labels_n.astype(np.int64)

    def __reduce__(self) -> tuple[object, tuple[Source]]:
        """Make a data worker open the source itself, which is faster than sending it the arrays."""
        return _open, (self._source,)


def _open(source: Source) -> OpenSource:
    return source.open()
