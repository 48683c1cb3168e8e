"""Encoders of torchvision as trunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from aimcore import InvalidValue, PatchGrid, Problem, Trunk, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.messages import did_you_mean
from aimcore_trunks.foreign import ForeignModule, Outputs, below_model, outputs_of, reading_problems, width_of

_SMALL_SIDE = 96
"""Pixels that every convolutional network of torchvision reads."""
_HEADS = ("fc", "classifier", "heads", "head")
"""Attributes of torchvision's classifiers that follow the encoder."""


@component("torchvision")
class TorchvisionTrunk(Trunk):
    """Any classification model of torchvision, without its classifier.

    Its tokens are the output of the part ``output``: a map of features, or a sequence of tokens. Weights are never
    downloaded: ``initial_weights`` takes a file of torchvision's ``state_dict()``, whose classifier is not read.
    """

    model: str
    """A name of ``torchvision.models.list_models()``, such as ``"resnet50"``."""
    output: str
    """The part whose output is read, such as ``"layer4"`` (ResNet), ``"features"`` (most others), ``"norm"`` (Swin) or
    ``"encoder"`` (ViT)."""
    patch_size: int = 32
    """Pixels per side of a token: the total stride of a convolutional network."""
    num_extra: int = 0
    """Number of tokens before those of patches: 1 for a ViT."""
    blocks: tuple[str, ...] = ()
    """Parts whose outputs are the trunk's layers, first to last, of the shape of ``output``; by default ``output``."""

    def problems(self) -> Iterable[Problem]:
        """Yield an unknown model, and sizes that are not positive."""
        # Its import takes seconds, and most experiments use another trunk.
        from torchvision.models import list_models

        known = list_models()
        if self.model not in known:
            hint = did_you_mean(self.model, known) or "; torchvision.models.list_models() names all"
            yield Problem("model", f"torchvision has no model {self.model!r}{hint}")
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        yield from at_least("num_extra", self.num_extra, 0, limits.WIDTH)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield why the model cannot read images of ``grid``."""
        return reading_problems(self, grid)

    def build(self) -> TorchvisionModule:
        """Build the module with fresh weights.

        Raises:
            InvalidValue: the model has no such part.
        """
        return TorchvisionModule(self)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert a state dictionary of torchvision's model."""
        return below_model(state, (f"{head}." for head in _HEADS))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples: torchvision has no model that is small enough to be checked with every objective."""
        return ()


class TorchvisionModule(ForeignModule):
    """The module of :class:`TorchvisionTrunk`."""

    def __init__(self, config: TorchvisionTrunk) -> None:
        model, blocks = _without_head(config.model), config.blocks or (config.output,)
        parts = dict(model.named_modules())
        missing = [name for name in (config.output, *blocks) if name not in parts]
        if missing:
            known = ", ".join(name for name, _ in model.named_children())
            problem = f"{config.model} has no part {missing[0]!r}; there are {known}, and parts of these"
            raise InvalidValue("TorchvisionTrunk", [("output", problem)])
        super().__init__(
            width=_width(model, config),
            depth=len(blocks),
            patch_size=config.patch_size,
            num_channels=3,
            num_extra=config.num_extra,
        )
        self.model = model
        self._output, self._blocks = config.output, blocks

    def read(self, pixels_BCHW: Tensor, layers: tuple[int, ...]) -> Outputs:
        """Run the whole model, and keep the outputs of the parts."""
        names = [self._blocks[layer] for layer in layers]
        with outputs_of(self.model, (self._output, *names)) as found:
            self.model(pixels_BCHW)
        return Outputs(found[self._output], tuple(found[name] for name in names))


def _without_head(name: str) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None)
    for head in _HEADS:
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
    return model


def _width(model: nn.Module, config: TorchvisionTrunk) -> int:
    """Return the width of the output, by reading a small empty image."""
    side = int(getattr(model, "image_size", max(_SMALL_SIDE, 2 * config.patch_size)))
    was_training = model.training
    with torch.no_grad(), outputs_of(model, [config.output]) as found:
        model.eval()(torch.zeros(1, 3, side, side))
    model.train(was_training)
    return width_of(found[config.output], side // config.patch_size)
