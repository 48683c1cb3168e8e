"""What an encoder does with an image: principal components of its tokens, similarities of patches, attention.

Attention is read from calls of torch's scaled dot-product attention while the encoder reads an image. So it is found in
any encoder that calls it once per block for all tokens, whatever library it is from.

Shape suffixes: B images, C channels, H heads, N patches, T tokens with extra ones, E values per head, D width,
Q query patches, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from aimcore.contracts.features import Reading
from aimcore.contracts.images import PatchGrid, images_of
from aimcore.encoders.encoder import Encoder

MOST_SIMILARITIES = 2**19
"""Largest number of similarities of an image; beyond, some patches are chosen to be compared with all."""


@attrs.frozen(eq=False)
class LookedAt:
    """What an encoder does with one image."""

    grid: PatchGrid
    """The grid of its tokens."""
    tokens_ND: Tensor
    """After the final norm, in raster order, float32."""
    blocks: tuple[Tensor, ...]
    """Raw outputs of :attr:`block_numbers`, ``[N, D]`` each."""
    block_numbers: tuple[int, ...]
    queries: tuple[int, ...]
    """Raster indices of the patches whose attention was kept."""
    attention_LHQN: Tensor | None
    """Attention of these patches to all patches, by block and head; rows add up to 1 with the extra tokens. None if it
    could not be read."""


def look(encoder: Encoder, pixels_CHW: Tensor, *, most_attention: int, num_blocks: int = 4) -> LookedAt:
    """Read an image, and return what is worth looking at.

    Args:
        encoder: the encoder.
        pixels_CHW: pixels as ``encoder.transform`` gives them.
        most_attention: largest number of attention values; with more, only some patches are queries.
        num_blocks: number of blocks whose outputs are kept, from early to late.
    """
    images = images_of(pixels_CHW[None], encoder.patch_size)
    grid = encoder.trunk.output_grid(images.grid)
    spread = (round((number + 1) * encoder.depth / (num_blocks + 1)) for number in range(num_blocks))
    numbers = tuple(dict.fromkeys(min(encoder.depth - 1, number) for number in spread))
    num_extra = encoder.trunk.num_extra

    def queries_for(num_heads: int) -> tuple[int, ...]:
        return spread_queries(grid, most_attention // max(1, encoder.depth * num_heads * grid.num_patches))

    with torch.no_grad(), _Attention(num_extra + grid.num_patches, num_extra, queries_for) as attention:
        features = encoder.module(images, Reading(layers=numbers))
    found = attention.found
    is_whole = len(found) == encoder.depth and len({one.shape for one in found}) == 1
    return LookedAt(
        grid=grid,
        tokens_ND=features.tokens_BND[0].float(),
        blocks=tuple(block[0].float() for block in features.layers),
        block_numbers=numbers,
        queries=queries_for(found[0].shape[0]) if is_whole else (),
        attention_LHQN=torch.stack(found) if is_whole else None,
    )


class _Attention(TorchFunctionMode):
    """While it is active, collects the attention of every call over ``num_tokens`` tokens of one image."""

    def __init__(self, num_tokens: int, num_extra: int, queries_for: Callable[[int], tuple[int, ...]]) -> None:
        super().__init__()
        self._num_tokens, self._num_extra, self._queries_for = num_tokens, num_extra, queries_for
        self.found: list[Tensor] = []
        """``[H, Q, N]`` per call."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute the attention of a call before the call itself."""
        options = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            self._note(*args, **options)
        return func(*args, **options)

    def _note(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_others: Any,
    ) -> None:
        size = self._num_tokens
        if query.dim() != 4 or query.shape[0] != 1 or query.shape[2] != size or key.shape[2] != size:
            return
        if is_causal or key.shape[1] != query.shape[1]:
            return
        chosen = torch.tensor(self._queries_for(query.shape[1]), device=query.device) + self._num_extra
        scores_HQT = query[0, :, chosen].float() @ key[0].float().mT * (scale or 1 / math.sqrt(query.shape[-1]))
        if attn_mask is not None:
            rows = attn_mask.expand(1, query.shape[1], size, size)[0, :, chosen]
            scores_HQT = (
                scores_HQT.masked_fill(~rows, -math.inf) if rows.dtype == torch.bool else scores_HQT + rows.float()
            )
        self.found.append(scores_HQT.softmax(-1)[..., self._num_extra :].cpu())


def spread_queries(grid: PatchGrid, most: int) -> tuple[int, ...]:
    """Return the raster indices of patches on a regular grid, at most ``most`` of them, but at least one.

    >>> spread_queries(PatchGrid(4, 4), 4)
    (5, 7, 13, 15)
    """
    step = 1
    while step < max(grid.rows, grid.columns) and -(-grid.rows // step) * -(-grid.columns // step) > most:
        step += 1
    rows, columns = (range(min(step // 2, side - 1), side, step) for side in (grid.rows, grid.columns))
    return tuple(row * grid.columns + column for row in rows for column in columns)


def similarities(looked: LookedAt) -> tuple[tuple[int, ...], Tensor]:
    """Return query patches, all if there are not too many, and their cosine similarities to all patches ``[Q, N]``."""
    queries = spread_queries(looked.grid, MOST_SIMILARITIES // looked.grid.num_patches)
    unit_ND = functional.normalize(looked.tokens_ND, dim=1)
    return queries, unit_ND[list(queries)] @ unit_ND.T


def component_colours(tokens: Sequence[Tensor]) -> list[Tensor]:
    """Return the first three principal components of the tokens of several images, as colours ``uint8 [N, 3]``.

    The components are those of all images together, so that colours can be compared between them. Each is scaled from
    its 1st to its 99th percentile, and has the sign that makes its largest loading positive.
    """
    all_ND = torch.cat(list(tokens)).double()
    mean_D = all_ND.mean(0)
    _, _, loadings = torch.linalg.svd(all_ND - mean_D, full_matrices=False)
    loadings_3D = loadings[:3]
    largest = loadings_3D.abs().argmax(1, keepdim=True)
    loadings_3D = loadings_3D * loadings_3D.gather(1, largest).sign()
    scores_N3 = functional.pad((all_ND - mean_D) @ loadings_3D.T, (0, 3 - len(loadings_3D)))
    low_3, high_3 = (torch.quantile(scores_N3[: 2**20], share, dim=0) for share in (0.01, 0.99))
    unit_N3 = ((scores_N3 - low_3) / (high_3 - low_3).clamp(min=1e-12)).clamp(0, 1)
    colours_N3 = (unit_N3 * 255).round().to(torch.uint8)
    return list(torch.split(colours_N3, [len(one) for one in tokens]))
