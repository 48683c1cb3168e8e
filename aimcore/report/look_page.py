"""The page of ``aimcore look``: what an encoder does with images. Patches are chosen on the page, by a script in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.images import PatchGrid
from aimcore.encoders.looking import LookedAt, component_colours, similarities
from aimcore.report.small_pages import picture_url, write_page

MOST_ATTENTION = 6 * 2**20
"""Largest number of attention values on a page, over all images."""


@attrs.frozen(eq=False)
class LookedImage:
    """An image on the page."""

    name: str
    rendered_CHW: Tensor
    """As the encoder reads it, ``uint8``."""
    looked: LookedAt


def write_look_page(encoder: str, description: str, images: Sequence[LookedImage], path: Path) -> None:
    """Write the page.

    Args:
        encoder: what the encoder is called.
        description: what it is, in a few words.
        images: at least one image.
        path: the file.

    Raises:
        CannotWrite: the system refused.
    """
    finals = component_colours([one.looked.tokens_ND for one in images])
    blocks = [component_colours(outputs) for outputs in zip(*(one.looked.blocks for one in images), strict=True)]
    shown = [
        _shown(one, final, [of_block[number] for of_block in blocks])
        for number, (one, final) in enumerate(zip(images, finals, strict=True))
    ]
    data = [one["data"] for one in shown]
    write_page("look.html", path, {"encoder": encoder, "description": description, "images": shown, "data": data})


def _shown(one: LookedImage, final_N3: Tensor, blocks: Sequence[Tensor]) -> dict[str, Any]:
    looked = one.looked
    queries, similar_QN = similarities(looked)
    image_HWC = np.ascontiguousarray(one.rendered_CHW[:3].permute(1, 2, 0).expand(-1, -1, 3).numpy())
    attention = looked.attention_LHQN
    data: dict[str, Any] = {
        "rows": looked.grid.rows,
        "columns": looked.grid.columns,
        "similarityQueries": list(queries),
        # From -1 to 1 as 0 to 255.
        "similarity": _encoded(((similar_QN.clamp(-1, 1) + 1) * 127.5).round()),
        "attentionQueries": list(looked.queries),
        "layers": 0 if attention is None else attention.shape[0],
        "heads": 0 if attention is None else attention.shape[1],
        "attention": "" if attention is None else _encoded(_relative(attention)),
    }
    return {
        "name": one.name,
        "picture": picture_url(image_HWC),
        "components": _coloured(final_N3, looked.grid),
        "blocks": [
            (number, _coloured(colours, looked.grid))
            for number, colours in zip(looked.block_numbers, blocks, strict=True)
        ],
        "grid": f"{looked.grid.rows} x {looked.grid.columns}",
        "attention": _about_attention(looked),
        "data": data,
    }


def _about_attention(looked: LookedAt) -> str:
    """Say which patches have attention maps; empty if it could not be read."""
    if looked.attention_LHQN is None:
        return ""
    number = len(looked.queries)
    if number == looked.grid.num_patches:
        return "of the chosen patch"
    return f"of the patch nearest to the chosen one, of {number} patches that are kept,"


def _relative(attention_LHQN: Tensor) -> Tensor:
    """Scale each map to its largest value, from 0 to 255."""
    largest = attention_LHQN.amax(-1, keepdim=True).clamp(min=1e-12)
    return (attention_LHQN / largest * 255).round()


def _encoded(values: Tensor) -> str:
    return base64.b64encode(values.to(torch.uint8).contiguous().numpy().tobytes()).decode()


def _coloured(colours_N3: Tensor, grid: PatchGrid) -> str:
    return picture_url(np.ascontiguousarray(colours_N3.reshape(grid.rows, grid.columns, 3).numpy()))
