"""Tokenizers, each broken in one way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import ImageTokenizer, ImageTokenizerModule, PatchGrid, Text, TextTokenizer, component
from aimcore.contracts.images import unpatchify
from aimcore.contracts.targets import Sees
from aimcore.testing.checks import tokenizers as checks


@component("sound_levels")
class Levels(ImageTokenizer):
    """The brightness of each patch, in four levels."""

    @property
    def num_codes(self) -> int:
        return 4

    def brightness(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return functional.adaptive_avg_pool2d(view_BCHW, (grid.rows, grid.columns)).mean(1).flatten(1)

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return (self.brightness(view_BCHW, grid) * 40).long() % 4

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        grey_BNF = (codes_BN / 4)[..., None].expand(-1, -1, 3 * 4 * 4)
        return unpatchify(grey_BNF, grid, 4)


@component("mutant")
class ShortCodes(Levels):
    """Gives codes as int32."""

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return super().encode(view_BCHW, grid).int()


@component("mutant")
class TooFew(Levels):
    """Has more codes than it says."""

    @property
    def num_codes(self) -> int:
        return 2


@component("mutant")
class BatchNormalised(Levels):
    """Compares each image with another one of its batch."""

    def brightness(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        brightness_BN = super().brightness(view_BCHW, grid)
        return (brightness_BN + brightness_BN.roll(1, dims=0)) / 2


@component("mutant")
class Flat(Levels):
    """Decodes to rows of numbers."""

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        return codes_BN / 4


@component("mutant")
class Thumbnail(Levels):
    """Decodes to one pixel per patch."""

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        return super().decode(codes_BN, grid)[..., ::4, ::4]


@component("mutant")
class Yes(Levels):
    """Gives its number of pixels per patch as a bool."""

    @property
    def pixels_per_patch(self) -> int | None:
        return True

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        raise NotImplementedError


@component("mutant")
class OneGrid(Levels):
    """Always cuts images into 3 x 4 patches."""

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return super().encode(view_BCHW, PatchGrid(3, 4))


@component("mutant")
class Blurred(Levels):
    """Says that its codes see a patch alone, and mixes in the patch before."""

    def brightness(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        brightness_BN = super().brightness(view_BCHW, grid)
        return 0.8 * brightness_BN + 0.2 * brightness_BN.roll(1, dims=1)


@component("mutant")
class ShortSighted(Levels):
    """Says that its codes depend on the whole image."""

    @property
    def sees(self) -> Sees:
        return "image"


@component("mutant")
class InPlace(Levels):
    """Clips the view where it stands."""

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return super().encode(view_BCHW.clamp_(0.1, 0.9), grid)


@component("mutant")
class Branching(Levels):
    """Looks at the pixels to find out their range."""

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        return super().encode(view_BCHW / 255 if view_BCHW.max() > 100 else view_BCHW, grid)


class Convolved(ImageTokenizerModule):
    """The strongest of random filters, which reach into the patches around."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(num_channels, 8, kernel_size=5, padding=2)

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        maps_BKHW = self.filters(view_BCHW.to(self.filters.weight.dtype))
        pooled_BKRC = functional.adaptive_avg_pool2d(maps_BKHW, (grid.rows, grid.columns))
        return (pooled_BKRC - pooled_BKRC.mean((2, 3), keepdim=True)).argmax(1).flatten(1)


@component("sound_convolved")
class Filters(ImageTokenizer):
    """Codes with random weights, which see the whole image, and which cannot be decoded."""

    @property
    def num_codes(self) -> int:
        return 8

    @property
    def sees(self) -> Sees:
        return "image"

    def build(self, patch_size: int, num_channels: int) -> ImageTokenizerModule | None:
        return Convolved(num_channels)


class UnsavedConvolved(Convolved):
    in_checkpoints = False


@component("mutant")
class Unsaved(Filters):
    """Draws filters that are in no checkpoint."""

    def build(self, patch_size: int, num_channels: int) -> ImageTokenizerModule | None:
        return UnsavedConvolved(num_channels)


@component("sound_bytes")
class Bytes(TextTokenizer):
    """Bytes counted from 1; 0 is padding."""

    @property
    def vocabulary_size(self) -> int:
        return 257

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        rows = [[byte + 1 for byte in text.encode()][:context_length] for text in texts]
        ids_BT = torch.tensor([row + [0] * (context_length - len(row)) for row in rows])
        return Text(ids_BT=ids_BT, valid_BT=ids_BT > 0)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(identifier - 1 for identifier in ids).decode()


@component("mutant")
class ShortIds(Bytes):
    """Gives ids as int32."""

    def encode(self, texts: Sequence[str], context_length: int) -> Text:
        text = super().encode(texts, context_length)
        return Text(ids_BT=text.ids_BT.int(), valid_BT=text.valid_BT)


@component("mutant")
class Ascii(Bytes):
    """Forgets in its vocabulary that ids are counted from 1."""

    @property
    def vocabulary_size(self) -> int:
        return 100


@component("mutant")
class Unending(Bytes):
    """Promises an end token, and never gives one."""

    @property
    def end_id(self) -> int:
        return 200


@component("mutant")
class Reversing(Bytes):
    """Decodes backwards."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids)[::-1]


SOUND = (Levels(), Filters(), Bytes())
MUTANTS = (
    (checks.check_codes_are_one_int64_per_patch, ShortCodes()),
    (checks.check_codes_are_below_num_codes, TooFew()),
    (checks.check_codes_of_an_image_depend_on_it_alone, BatchNormalised()),
    (checks.check_pixels_per_patch_is_a_positive_whole_number, Yes()),
    (checks.check_codes_fit_any_grid, OneGrid()),
    (checks.check_codes_depend_on_what_the_tokenizer_sees, Blurred()),
    (checks.check_codes_depend_on_what_the_tokenizer_sees, ShortSighted()),
    (checks.check_the_view_stays_as_it_was, InPlace()),
    (checks.check_a_dry_run_can_encode, Branching()),
    (checks.check_its_weights_come_back_with_a_checkpoint, Unsaved()),
    (checks.check_decoded_codes_are_images, Flat()),
    (checks.check_decoded_codes_are_images, Thumbnail()),
    (checks.check_texts_are_padded_and_cut_to_the_context, ShortIds()),
    (checks.check_ids_are_below_the_vocabulary_size, Ascii()),
    (checks.check_rows_are_begin_text_end_padding, Unending()),
    (checks.check_decoded_text_encodes_to_the_same_ids, Reversing()),
)
