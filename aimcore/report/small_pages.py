"""Pages beside the report: one self-contained HTML file each, in the report's style."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from aimcore.io.atomic_files import make_folder, write_atomically
from aimcore.report.style import DARK, LIGHT


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> None:
    """Draw a template with ``values``, all of which are escaped, and write the page.

    Raises:
        CannotWrite: the system refused.
    """
    environment = Environment(
        loader=PackageLoader("aimcore.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template(template).render(light=LIGHT, dark=DARK, **values)
    make_folder(path.absolute().parent)
    write_atomically(path, text.encode(errors="replace"))


def picture_url(pixels_HWC: npt.NDArray[np.uint8], most: int | None = None) -> str:
    """Return an image as a ``data:`` URL: a JPEG of at most ``most`` pixels per side, or the exact pixels as PNG."""
    picture = Image.fromarray(pixels_HWC)
    if most is not None:
        picture.thumbnail((most, most))
    content, kind = io.BytesIO(), "png" if most is None else "jpeg"
    picture.save(content, kind, **({} if most is None else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
