"""Encoders of other libraries as trunks: what they return becomes tokens on the grid of patches.

Shape suffixes: B images, C channels, H W pixels, N patches, R extra tokens, T tokens of all kinds, D width, F values of
a patch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from aimcore import AimcoreError, Features, Images, PatchGrid, Reading, Trunk, TrunkModule

FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Errors with which a library refuses a model, a setting or an image size."""


class OtherTokens(AimcoreError):
    """An encoder returns tokens that are not those of the declared grid."""


class Outputs(NamedTuple):
    """What an encoder returns: ``[B, R + N, D]``, or maps ``[B, D, rows, columns]`` or ``[B, rows, columns, D]``."""

    final: Tensor
    blocks: tuple[Tensor, ...]


class ForeignModule(TrunkModule):
    """The module of an encoder of another library. It reads in raster order, bidirectionally.

    Batch norms keep their statistics while the trunk is trained: no image depends on the other images of its batch.
    """

    num_heads: int | None = None
    """Number of attention heads of its blocks, if known."""
    library: str | None = None
    """The library and its version, and the architecture there."""

    def __init__(self, *, width: int, depth: int, patch_size: int, num_channels: int, num_extra: int) -> None:
        super().__init__()
        self.width, self.depth, self.patch_size, self.num_channels = width, depth, patch_size, num_channels
        self._num_extra = num_extra

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but batch norms, which stay in evaluation mode."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    @abstractmethod
    def read(self, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Outputs:
        """Return the encoder's output, and the raw outputs of the blocks ``layers``."""

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read the images.

        Raises:
            OtherTokens: the encoder returns other tokens than declared.
        """
        final, blocks = self.read(images.pixels_BCHW, reading.layers)
        tokens_BND, extra_BRD = _split(final, images, self._num_extra)
        layers = tuple(_split(block, images, self._num_extra)[0] for block in blocks)
        return Features(tokens_BND, images.positions_BN2, images.valid_BN, layers, extra_BRD)


def _split(output: Tensor, images: Images, num_extra: int) -> tuple[Tensor, Tensor | None]:
    """Return tokens of patches ``[B, N, D]`` in raster order, and extra tokens ``[B, R, D]`` if there are any."""
    rows, columns = images.grid.rows, images.grid.columns
    if output.dim() == 3 and output.shape[1] == num_extra + rows * columns:
        return output[:, num_extra:], output[:, :num_extra] if num_extra else None
    if output.dim() == 4 and not num_extra and tuple(output.shape[2:]) == (rows, columns):
        return output.flatten(2).transpose(1, 2), None
    if output.dim() == 4 and not num_extra and tuple(output.shape[1:3]) == (rows, columns):
        return output.flatten(1, 2), None
    raise OtherTokens(
        f"the encoder returns {list(output.shape)} for images of {rows} x {columns} patches of {images.patch_size} px "
        f"and {num_extra} extra tokens (batch, tokens, width; or a map): set patch_size to the pixels per side of a "
        "token, and num_extra to the number of class, distillation and register tokens"
    )


def reading_problems(trunk: Trunk, grid: PatchGrid) -> Iterator[str]:
    """Yield why ``trunk`` cannot read images of ``grid``: one image is read on the meta device, without numbers."""
    try:
        # Whatever is drawn on the CPU must not change later draws.
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
            module = trunk.build().eval()
            num_values = trunk.patch_size**2 * module.num_channels
            patches_BNF = torch.empty(1, grid.num_patches, num_values)
            module(Images(patches_BNF=patches_BNF, grids=(grid,), patch_size=trunk.patch_size), Reading())
    except FAULTS as error:
        text = str(error) or type(error).__name__
        yield f"it cannot read images of {grid.rows} x {grid.columns} patches of {trunk.patch_size} px: {text}"


@contextmanager
def outputs_of(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the parts ``names`` of ``model`` by name; of several outputs of a part, the first."""
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return note

    handles = [model.get_submodule(name).register_forward_hook(noting(name)) for name in dict.fromkeys(names)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def exempt_vectors_from_decay(model: nn.Module) -> None:
    """Let weight decay leave out learned vectors whatever their shape: tokens, queries, gains and tables of positions.

    They are in no matrix product: parameters ``[1, ...]`` outside of linear layers and convolutions, and those whose
    name, or that of their module, contains "position".
    """
    for path, part in model.named_modules():
        if not isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            is_table = "position" in path.rpartition(".")[2]
            shapes = {name: getattr(own, "ds_shape", own.shape) for name, own in part.named_parameters(recurse=False)}
            vectors = {name for name, shape in shapes.items() if is_table or "position" in name or shape[:1] == (1,)}
            if vectors:
                part.no_weight_decay = frozenset(vectors)


def below_model(state: Mapping[str, Tensor], dropped: Iterable[str]) -> dict[str, Tensor]:
    """Return ``state`` with names of the attribute ``model``, without entries that begin with one of ``dropped``."""
    prefixes = tuple(dropped)
    return {f"model.{name}": value for name, value in state.items() if not name.startswith(prefixes)}


def width_of(output: Tensor, rows: int) -> int:
    """Return the width D of an encoder's output for an image of ``rows`` x ``rows`` patches."""
    channels_last = output.dim() == 3 or tuple(output.shape[1:3]) == (rows, rows)
    return int(output.shape[-1] if channels_last else output.shape[1])
