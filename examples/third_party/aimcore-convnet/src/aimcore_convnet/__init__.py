"""A convolutional trunk for aimcore: the module that this distribution's entry point names."""

from __future__ import annotations

from collections.abc import Sequence

from aimcore import Trunk, hookimpl
from aimcore_convnet.trunk import ConvNet, ConvNetModule


@hookimpl
def trunks() -> Sequence[type[Trunk]]:
    """The trunks that this plugin supplies."""
    return [ConvNet]


__all__ = ["ConvNet", "ConvNetModule"]
