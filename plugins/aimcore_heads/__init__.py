"""Built-in prediction heads."""

from collections.abc import Sequence

from aimcore import Head, hookimpl
from aimcore_heads.linear import LinearHead
from aimcore_heads.mlp import MLPHead
from aimcore_heads.transformer import TransformerHead


@hookimpl
def heads() -> Sequence[type[Head]]:
    """Supply the heads of Table 3e."""
    return [LinearHead, MLPHead, TransformerHead]


__all__ = ["LinearHead", "MLPHead", "TransformerHead"]
