"""Tokenizers, each broken in one way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import ImageTokenizer, PatchGrid, Text, TextTokenizer, component
from aimcore.contracts.images import unpatchify
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
        grey_BNF = (codes_BN / 4)[..., None].expand(-1, -1, 3 * 8 * 8)
        return unpatchify(grey_BNF, grid, 8)


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
    """Compares each image with the mean of its batch."""

    def brightness(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        brightness_BN = super().brightness(view_BCHW, grid)
        return (brightness_BN - brightness_BN.min()) / (brightness_BN.max() - brightness_BN.min())


@component("mutant")
class Flat(Levels):
    """Decodes to rows of numbers."""

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        return codes_BN / 4


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


SOUND = (Levels(), Bytes())
MUTANTS = (
    (checks.check_codes_are_one_int64_per_patch, ShortCodes()),
    (checks.check_codes_are_below_num_codes, TooFew()),
    (checks.check_codes_of_an_image_depend_on_it_alone, BatchNormalised()),
    (checks.check_decoded_codes_are_images, Flat()),
    (checks.check_texts_are_padded_and_cut_to_the_context, ShortIds()),
    (checks.check_ids_are_below_the_vocabulary_size, Ascii()),
    (checks.check_rows_are_begin_text_end_padding, Unending()),
    (checks.check_decoded_text_encodes_to_the_same_ids, Reversing()),
)
