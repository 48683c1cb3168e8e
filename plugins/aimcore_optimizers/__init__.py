"""Built-in optimizers."""

from aimcore import hookimpl
from aimcore.contracts.optimizers import Optimizer
from aimcore_optimizers.adamw import AdamW

__all__ = ["AdamW", "optimizers"]


@hookimpl
def optimizers() -> list[type[Optimizer]]:
    """The optimizers of this package."""
    return [AdamW]
