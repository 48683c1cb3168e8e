"""An encoder from a file as a trunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import attrs
from torch import Tensor

from aimcore import Capability, InvalidValue, PatchGrid, Problem, Trunk, TrunkModule, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.layouts import GivenSettings
from aimcore.contracts.trunks import PretrainedTrunk
from aimcore.encoders.loading import load_encoder, open_model
from aimcore.encoders.named_models import named_weights, names_model
from aimcore.encoders.own_files import run_folder, trunk_of_run
from aimcore.encoders.preprocessing import side_problems, size_problems
from aimcore.io.locations import location_problems
from aimcore.io.weight_files import open_weights
from aimcore_trunks.vit import ViT


@component("pretrained")
class Pretrained(Trunk):
    """The encoder in a file, with its weights: everything that ``aimcore.load_encoder`` opens.

    An experiment replaces it by the trunk that it finds in the file, and by ``initial_weights``: the recipe has the
    plain trunk, the file and its hash. Objective, head and decoder begin with fresh weights; those of the released
    encoders were never released. Use it like any trunk: frozen with ``num_steps=0``, inside ``LoRA``, as the image
    tower of LiT, or to continue pre-training.
    """

    url: str
    """A file, an index of shards or a folder, by its path or fsspec URL; the folder of a run; or a model of another
    library with the file of its weights: ``timm:vit_base_patch16_224@mae.pth``, ``transformers:FOLDER``."""
    sha256: str | None = None
    """Hash of the file; a file with another hash is refused. A run without it records the file's hash in its recipe."""
    num_heads: int | None = None
    """Heads, which weights do not say; by default those of the config next to the file, else heads of 128 values.
    Runs and models of other libraries state their heads, and refuse a number."""
    text_heads: int | None = None
    """Heads of the text tower or decoder in the file, which is not read; with the same default."""
    image_size: int | None = None
    """Side of the images in pixels, a multiple of the patch size, if learned positions are to be interpolated for it,
    once. Without it, and in models of other libraries, they are interpolated whenever images have another size than the
    file's, where the model can do that."""

    @property
    def capabilities(self) -> frozenset[Capability | str]:
        """The capabilities of the trunk in the file."""
        return self._plain().capabilities

    @property
    def patch_size(self) -> int:
        """The patch size of the trunk in the file."""
        return self._plain().patch_size

    @property
    def num_extra(self) -> int:
        """The number of extra tokens of the trunk in the file."""
        return self._plain().num_extra

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """Return the grid of the tokens of the trunk in the file."""
        return self._plain().output_grid(grid)

    def problems(self) -> Iterable[Problem]:
        """Yield a refused URL, and sizes that are not positive. The file is not read."""
        if not names_model(self.url):
            yield from location_problems("url", self.url)
        if self.num_heads is not None:
            yield from at_least("num_heads", self.num_heads, 1, limits.HEADS)
        if self.text_heads is not None:
            yield from at_least("text_heads", self.text_heads, 1, limits.HEADS)
        if self.image_size is not None:
            yield from at_least("image_size", self.image_size, 1, limits.IMAGE_SIDE)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why the trunk in the file cannot read images of ``grid``."""
        return self._plain().problems_with(grid)

    def build(self) -> TrunkModule:
        """Build the trunk in the file, with its weights.

        Raises:
            AimcoreError: the file cannot be read.
        """
        found = self.pretrained()
        module = found.trunk.build()
        if all(parameter.is_meta for parameter in module.parameters()):
            return module  # only its shapes are asked for
        opened = load_encoder(self.url, num_heads=self.num_heads, text_heads=self.text_heads, sha256=self.sha256)
        state = opened.module.state_dict()
        module.load_state_dict(found.trunk.resized(state) if found.resize else state)
        return module

    def pretrained(self) -> PretrainedTrunk:
        """Return the trunk in the file, and the file.

        Raises:
            AimcoreError: the file cannot be read, or holds no encoder.
            InvalidValue: the trunk cannot read images of ``image_size``, or ``num_heads`` is given for a trunk that
                states its heads.
        """
        trunk, url = self._opened()
        if self.image_size is None:
            return PretrainedTrunk(trunk, url, self.sha256)
        resized = self._resized(trunk, self.image_size)
        return PretrainedTrunk(resized, url, self.sha256, resize=resized != trunk)

    def convert(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Convert as the trunk in the file does."""
        return self._plain().convert(state)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the file is the user's."""
        return ()

    def _plain(self) -> Trunk:
        return self.pretrained().trunk

    def _resized(self, trunk: Trunk, size: int) -> Trunk:
        """Return ``trunk`` for images of ``size`` pixels: with learned positions for them, if it has any of its own."""
        has_positions = isinstance(trunk, ViT) and trunk.grid is not None
        problems = list(side_problems(trunk, size) if has_positions else size_problems(trunk, size))
        if problems:
            raise InvalidValue("Pretrained", [("image_size", problem) for problem in problems])
        if not has_positions:
            return trunk
        side = size // trunk.patch_size
        return cast(Trunk, attrs.evolve(cast(Any, trunk), grid=(side, side), interpolate=False))

    def _opened(self) -> tuple[Trunk, str]:
        """Return the trunk in the file, and the file: of a folder, the one in it."""
        run = None if names_model(self.url) else run_folder(self.url)
        if names_model(self.url) or run is not None:
            self._require_no_heads()
        if run is not None:
            return trunk_of_run(run)
        if names_model(self.url):
            model, url = named_weights(self.url)
            return model.trunk, url
        weights = open_weights(self.url)
        given = GivenSettings(num_heads=self.num_heads, text_heads=self.text_heads)
        return open_model(weights, None, given).model.trunk, weights.url

    def _require_no_heads(self) -> None:
        given = [name for name in ("num_heads", "text_heads") if getattr(self, name) is not None]
        problem = f"cannot be given for {self.url}, which says itself how it is built"
        if given:
            raise InvalidValue("Pretrained", [(name, problem) for name in given])
