"""Checks of tokenizers: ids are within range and reproducible.

Shape suffixes: B batch, N patches, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aimcore.contracts.assembly import built_tokenizer
from aimcore.contracts.batches import Text
from aimcore.contracts.images import PatchGrid
from aimcore.contracts.tokenizers import ImageTokenizer, ImageTokenizerModule, TextTokenizer, Tokenizer
from aimcore.testing.checks import Check
from aimcore.testing.fixtures import GRID, NUM_IMAGES
from aimcore.testing.requirements import explained, require, same, seeded, shape_of

_TEXTS = ("a red shoe", "a", "a much longer text about two bags and a coat that will not fit", "")
_CONTEXT = 8
_PATCH_SIZE = 4
_ATTEMPTS = 4
"""Ways in which each patch is changed, because a code may stay the same."""


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


def check_pixels_per_patch_is_a_positive_whole_number(tokenizer: ImageTokenizer) -> None:
    """``pixels_per_patch`` is None, or an int of at least 1."""
    found = tokenizer.pixels_per_patch
    good = found is None or (type(found) is int and found > 0)
    require(good, f"pixels_per_patch must be a positive int or None, got {found!r}")


def check_codes_fit_any_grid(tokenizer: ImageTokenizer) -> None:
    """Another grid has another number of codes."""
    grid = PatchGrid(2, 5)
    with explained(f"encode fails for a grid of {grid.rows} x {grid.columns} patches"):
        codes = _built(tokenizer).encode(_view(tokenizer, grid), grid)
    require(
        codes.shape == (NUM_IMAGES, grid.num_patches),
        f"codes of a grid of {grid.rows} x {grid.columns} must be [{NUM_IMAGES}, {grid.num_patches}], got "
        f"{shape_of(codes)}",
    )


def check_codes_depend_on_what_the_tokenizer_sees(tokenizer: ImageTokenizer) -> None:
    """With ``sees = "patch"`` a code depends on its own patch alone; with ``"image"`` some code depends on others."""
    require(tokenizer.sees in ("patch", "image"), f"sees must be 'patch' or 'image', got {tokenizer.sees!r}")
    module, view_BCHW = _built(tokenizer), _view(tokenizer)
    codes_BN = module.encode(view_BCHW, GRID)
    side = view_BCHW.shape[-1] // GRID.columns
    moved = others = False
    for attempt in range(_ATTEMPTS):
        for patch in range(GRID.num_patches):
            changed_BCHW, generator = view_BCHW.clone(), torch.Generator().manual_seed(attempt)
            top, left = patch // GRID.columns * side, patch % GRID.columns * side
            pixels = changed_BCHW[..., top : top + side, left : left + side]
            pixels.copy_(torch.rand(pixels.shape, generator=generator) ** 4)
            rows = (module.encode(changed_BCHW, GRID) != codes_BN).any(0).nonzero().flatten().tolist()
            moved |= bool(rows)
            elsewhere = [row for row in rows if row != patch]
            others |= bool(elsewhere)
            require(
                tokenizer.sees == "image" or not elsewhere,
                f"codes of patches {elsewhere} change with patch {patch}: codes are in raster order, and sees must be "
                "'image' if a code depends on other patches, so that objectives name the patch that each step scores",
            )
    require(moved, "codes do not depend on the view")
    require(tokenizer.sees == "patch" or others, "sees is 'image', but no code depends on another patch: say 'patch'")


def check_the_view_stays_as_it_was(tokenizer: ImageTokenizer) -> None:
    """Nothing is changed in place."""
    view_BCHW = _view(tokenizer)
    _built(tokenizer).encode(view_BCHW, GRID)
    require(same(view_BCHW, _view(tokenizer)), "encode changes the view in place: work on a copy")


def check_a_dry_run_can_encode(tokenizer: ImageTokenizer) -> None:
    """Codes have a shape without pixels (on the meta device), as ``--dry-run`` needs."""
    with explained("fails without pixels: do not read what tensors hold (no .item(), no .cpu(), no 'if tensor')"):
        with torch.device("meta"):
            module = built_tokenizer(tokenizer, _PATCH_SIZE, 3)
        module.encode(_view(tokenizer).to("meta"), GRID)


def check_its_weights_come_back_with_a_checkpoint(tokenizer: ImageTokenizer) -> None:
    """Built anew, with what checkpoints hold, it gives the same codes: none of its weights is lost."""
    kept, again = _built(tokenizer, 1), _built(tokenizer, 2)
    with explained("its weights cannot be loaded into a module built anew"):
        again.load_state_dict(kept.state_dict())
    require(
        same(kept.encode(_view(tokenizer), GRID), again.encode(_view(tokenizer), GRID)),
        "a module built anew, with what checkpoints hold of the first, gives other codes: keep weights in parameters "
        "or buffers, and in_checkpoints True unless build reads them from a file",
    )


def check_decoded_codes_are_images(tokenizer: ImageTokenizer) -> None:
    """``decode`` gives finite pixels in the size of the view, or raises NotImplementedError."""
    try:
        module = _built(tokenizer)
        pixels = module.decode(module.encode(_view(tokenizer), GRID), GRID, _view(tokenizer))
    except NotImplementedError:
        return
    good = pixels.shape == _view(tokenizer).shape and pixels.is_floating_point()
    require(
        good and bool(pixels.isfinite().all()),
        f"decoded codes must be finite floats {list(_view(tokenizer).shape)}, like the view, got {shape_of(pixels)}",
    )


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
    check_pixels_per_patch_is_a_positive_whole_number,
    check_codes_fit_any_grid,
    check_codes_depend_on_what_the_tokenizer_sees,
    check_the_view_stays_as_it_was,
    check_a_dry_run_can_encode,
    check_its_weights_come_back_with_a_checkpoint,
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


def _built(tokenizer: ImageTokenizer, seed: int = 0) -> ImageTokenizerModule:
    with seeded(seed):
        return built_tokenizer(tokenizer, _PATCH_SIZE, 3)


def _view(tokenizer: ImageTokenizer, grid: PatchGrid = GRID) -> Tensor:
    """A random view, ``[B, C, H, W]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    side = tokenizer.pixels_per_patch or _PATCH_SIZE
    return torch.rand(NUM_IMAGES, 3, grid.rows * side, grid.columns * side, generator=generator)


def _ids(text: Text, row: int) -> list[int]:
    ids: list[int] = text.ids_BT[row][text.valid_BT[row]].tolist()
    return ids
