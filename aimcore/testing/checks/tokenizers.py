"""Checks of tokenizers: ids are within range and reproducible.

Shape suffixes: B batch, N patches, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aimcore.contracts.assembly import built_tokenizer
from aimcore.contracts.batches import Text
from aimcore.contracts.tokenizers import ImageTokenizer, ImageTokenizerModule, TextTokenizer, Tokenizer
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import GRID, NUM_IMAGES
from aimcore.testing.requirements import require, same, seeded, shape_of

_TEXTS = ("a red shoe", "a", "a much longer text about two bags and a coat that will not fit", "")
_CONTEXT = 8
_PATCH_SIZE = 8


def check_codes_are_one_int64_per_patch(tokenizer: ImageTokenizer) -> None:
    """``[B, N]`` int64."""
    codes = _built(tokenizer).encode(_view(tokenizer), GRID)
    good = codes.shape == (NUM_IMAGES, GRID.num_patches) and codes.dtype == torch.int64
    require(good, f"codes must be [{NUM_IMAGES}, {GRID.num_patches}] int64, got {shape_of(codes)}")


def check_codes_are_below_num_codes(tokenizer: ImageTokenizer) -> None:
    """Codes lie in [0, num_codes)."""
    codes = _built(tokenizer).encode(_view(tokenizer), GRID)
    low, high = int(codes.min()), int(codes.max())
    require(low >= 0 and high < tokenizer.num_codes, f"codes lie between {low} and {high} of {tokenizer.num_codes}")


def check_codes_of_an_image_depend_on_it_alone(tokenizer: ImageTokenizer) -> None:
    """An image has the same codes in any batch, every time."""
    view_BCHW, module = _view(tokenizer), _built(tokenizer)
    together, alone = module.encode(view_BCHW, GRID)[:1], module.encode(view_BCHW[:1], GRID)
    require(same(together, alone), "an image's codes depend on the rest of its batch, or are drawn anew")


def check_decoded_codes_are_images(tokenizer: ImageTokenizer) -> None:
    """``decode`` gives finite ``[B, C, H, W]`` floats, or raises NotImplementedError."""
    try:
        module = _built(tokenizer)
        pixels = module.decode(module.encode(_view(tokenizer), GRID), GRID, _view(tokenizer))
    except NotImplementedError:
        return
    good = pixels.dim() == 4 and len(pixels) == NUM_IMAGES and pixels.is_floating_point()
    require(good and bool(pixels.isfinite().all()), f"must be finite [B, C, H, W] floats, got {shape_of(pixels)}")


def check_texts_are_padded_and_cut_to_the_context(tokenizer: TextTokenizer) -> None:
    """``[B, T]`` int64 ids and bool ``valid_BT``, with padding at the end only."""
    text = tokenizer.encode(_TEXTS, _CONTEXT)
    shape = (len(_TEXTS), _CONTEXT)
    for name, found, kind in (("ids_BT", text.ids_BT, torch.int64), ("valid_BT", text.valid_BT, torch.bool)):
        good = found.shape == shape and found.dtype == kind
        require(good, f"{name} must be {list(shape)} {kind}, got {shape_of(found)}")
    ends = text.valid_BT.long().diff(dim=1)
    require(bool((ends <= 0).all()), "valid_BT must be True first and False after: padding is at the end")


def check_ids_are_below_the_vocabulary_size(tokenizer: TextTokenizer) -> None:
    """Ids lie in [0, V), padding included."""
    ids_BT = tokenizer.encode(_TEXTS, _CONTEXT).ids_BT
    low, high = int(ids_BT.min()), int(ids_BT.max())
    require(low >= 0 and high < tokenizer.vocabulary_size, f"ids lie between {low} and {high} of "
                                                           f"{tokenizer.vocabulary_size}")  # fmt: skip


def check_rows_are_begin_text_end_padding(tokenizer: TextTokenizer) -> None:
    """Rows are ``begin_id``, the text, ``end_id`` (even after a cut text), then ``padding_id``."""
    begin, end, padding = tokenizer.begin_id, tokenizer.end_id, tokenizer.padding_id
    text = tokenizer.encode(_TEXTS, _CONTEXT)
    for row, valid in zip(text.ids_BT.tolist(), text.valid_BT.sum(1).tolist(), strict=True):
        require(begin is None or row[0] == begin, f"begin_id is {begin}, but a row begins with {row[0]}")
        require(end is None or end in row, f"end_id is {end}, but it is not in {row}")
        rest = row[valid:] if end is None else row[row.index(end) + 1 :]
        require(set(rest) <= {padding}, f"padding_id is {padding}, but the text is followed by {rest}")


def check_decoded_text_encodes_to_the_same_ids(tokenizer: TextTokenizer) -> None:
    """Decoded text encodes to the same ids, and decoding omits special ids."""
    for row in range(2):
        once = tokenizer.decode(_ids(tokenizer.encode(_TEXTS, 64), row))
        twice = tokenizer.decode(_ids(tokenizer.encode([once], 64), 0))
        require(once == twice, f"{_TEXTS[row]!r} decodes to {once!r}, and that to {twice!r}")


IMAGE_CHECKS: tuple[Check, ...] = (
    check_codes_are_one_int64_per_patch,
    check_codes_are_below_num_codes,
    check_codes_of_an_image_depend_on_it_alone,
    check_decoded_codes_are_images,
)
TEXT_CHECKS: tuple[Check, ...] = (
    check_texts_are_padded_and_cut_to_the_context,
    check_ids_are_below_the_vocabulary_size,
    check_rows_are_begin_text_end_padding,
    check_decoded_text_encodes_to_the_same_ids,
)
CHECKS: tuple[Check, ...] = (*IMAGE_CHECKS, *TEXT_CHECKS)


def checks_of(tokenizer: Tokenizer) -> Iterator[Check]:
    """Yield the checks for images or for text."""
    if isinstance(tokenizer, ImageTokenizer):
        yield from IMAGE_CHECKS
    if isinstance(tokenizer, TextTokenizer):
        yield from TEXT_CHECKS


def _built(tokenizer: ImageTokenizer) -> ImageTokenizerModule:
    with seeded():
        return built_tokenizer(tokenizer, _PATCH_SIZE, 3)


def _view(tokenizer: ImageTokenizer) -> Tensor:
    """A random view, ``[B, C, H, W]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    side = tokenizer.pixels_per_patch or _PATCH_SIZE
    return torch.rand(NUM_IMAGES, 3, GRID.rows * side, GRID.columns * side, generator=generator)


def _ids(text: Text, row: int) -> list[int]:
    ids: list[int] = text.ids_BT[row][text.valid_BT[row]].tolist()
    return ids
