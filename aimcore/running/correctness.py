"""Which test images a probe classified correctly: one bit per image, in the summary.

With these bits two experiments are compared image by image, which is far more precise than a comparison of two
accuracies: most images are classified alike by both.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.component import Checked, at_least
from aimcore.contracts.errors import Problem


@attrs.frozen(kw_only=True)
class Correctness(Checked):
    """Which test images were classified correctly."""

    num: int
    """Number of test images."""
    images: str
    """Digest of the test source and of the numbers of its images that could be read. Bits of two scores belong to the
    same images only if their digests are equal."""
    bits: str
    """A bit per test image, ascending by number: 1 for a correct prediction. Eight bits to a byte, the first one
    highest; in base64."""

    @classmethod
    def of(cls, right_n: npt.NDArray[np.bool_], images: str) -> Correctness:
        """Return the record of ``right_n`` (``[n]`` bool), ascending by number of the image.

        >>> record = Correctness.of(np.array([True, False, True]), "digest")
        >>> record.bits, record.right_n().tolist()
        ('oA==', [True, False, True])
        """
        return cls(num=len(right_n), images=images, bits=b64encode(np.packbits(right_n).tobytes()).decode("ascii"))

    def right_n(self) -> npt.NDArray[np.bool_]:
        """Return ``[n]`` bool: whether each test image was classified correctly, ascending by number."""
        packed = np.frombuffer(b64decode(self.bits), dtype=np.uint8)
        return np.unpackbits(packed, count=self.num).astype(np.bool_)

    def problems(self) -> Iterable[Problem]:
        """Yield a negative number, and bits that are not base64 or do not have this number."""
        yield from at_least("num", self.num, 1)
        try:
            num_bytes = len(b64decode(self.bits, validate=True))
        except (binascii.Error, ValueError):
            yield Problem("bits", "must be base64")
            return
        if num_bytes != -(-self.num // 8):
            yield Problem("bits", f"must have {-(-self.num // 8)} bytes for {self.num} images, got {num_bytes}")
