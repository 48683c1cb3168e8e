"""Image files to write: the file of a sample as it is, or its pixels as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from aimcore.contracts.sample_writers import WrittenSample

_SIGNATURES = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def image_file(written: WrittenSample) -> tuple[bytes, str]:
    """Return the content and the ending of the image file of a sample: JPEG, PNG and WebP unchanged, others as PNG."""
    content = written.content
    if content is not None:
        ending = next((ending for start, ending in _SIGNATURES if content.startswith(start)), None)
        if ending is None and content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            ending = "webp"
        if ending is not None:
            return content, ending
    image_HWC = np.ascontiguousarray(written.sample.image.permute(1, 2, 0).numpy())
    picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC, _MODES[image_HWC.shape[2]])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue(), "png"
